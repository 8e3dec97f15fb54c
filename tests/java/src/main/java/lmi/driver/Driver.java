package lmi.driver;

import com.google.gson.Gson;
import com.google.gson.JsonElement;
import com.google.gson.JsonObject;
import com.google.gson.JsonParser;

import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;

/**
 * Drives DJL's own Python engine: one JSON command a line on standard input, events on standard
 * output, the engine's log on standard error. The end of the input closes the model and the JVM.
 *
 * <p>Every command has an {@code id}, which its events carry; README.md lists both.
 */
public final class Driver {

    private static final long DEFAULT_TIMEOUT_MS = 60_000;

    private final Reports reports = new Reports(System.out);
    /* Readers of streams block, as the model server's threads do: one thread for each. */
    private final ExecutorService readers = Executors.newCachedThreadPool();
    /* Loading and load runs may block for long; commands go on being read meanwhile. */
    private final ExecutorService background = Executors.newCachedThreadPool();
    private volatile PythonModel model;

    private Driver() {}

    public static void main(String[] args) throws IOException {
        Driver driver = new Driver();
        try (BufferedReader in =
                new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8))) {
            String line;
            while ((line = in.readLine()) != null) {
                JsonObject command = JsonParser.parseString(line).getAsJsonObject();
                driver.guarded(idOf(command), () -> driver.handle(command));
            }
        }
        driver.closeModel();
        System.exit(0);
    }

    private void handle(JsonObject command) {
        String id = idOf(command);
        switch (command.get("do").getAsString()) {
            case "load" -> background.execute(() -> guarded(id, () -> load(id, command)));
            case "predict" -> {
                PythonModel target = loaded();
                InputText input = InputText.of(command);
                Watch watch = new Watch(id, command.has("watch"), timeout(command));
                target.submitting().execute(() -> guarded(id, () -> predict(target, input, watch)));
            }
            case "batch" -> {
                PythonModel target = loaded();
                target.submitting().execute(() -> guarded(id, () -> batch(target, id, command)));
            }
            case "drive" -> background.execute(() -> guarded(id, () -> drive(id, command)));
            case "close" -> background.execute(() -> guarded(id, () -> close(id)));
            default -> throw new IllegalArgumentException("unknown command: " + command);
        }
    }

    private void load(String id, JsonObject command) throws Exception {
        long start = System.nanoTime();
        Map<String, String> options = InputText.strings(command.get("options"));
        model =
                PythonModel.load(
                        Path.of(command.get("path").getAsString()),
                        command.get("engine").getAsString(),
                        options);
        reports.event(id, "loaded", Map.of("ms", Reports.since(start)));
    }

    private void predict(PythonModel target, InputText input, Watch watch) throws Exception {
        long start = System.nanoTime();
        Answer answer = new Answer(target.predict(input.toInput()), start);
        readers.execute(
                () ->
                        guarded(
                                watch.id(),
                                () -> {
                                    answer.read(
                                            watch.timeoutMs(),
                                            () -> {
                                                if (watch.tellsFirst()) {
                                                    reports.event(watch.id(), "begun", Map.of());
                                                }
                                            });
                                    reports.event(watch.id(), "answer", answer.toMap());
                                }));
    }

    private void batch(PythonModel target, String id, JsonObject command) throws Exception {
        long start = System.nanoTime();
        List<InputText> inputs = new ArrayList<>();
        for (JsonElement element : command.getAsJsonArray("requests")) {
            inputs.add(InputText.of(element.getAsJsonObject()));
        }
        List<Map<String, Object>> answers = new ArrayList<>();
        for (var output : target.batchPredict(inputs.stream().map(InputText::toInput).toList())) {
            Answer answer = new Answer(output, start);
            answer.read(timeout(command), () -> {});
            answers.add(answer.toMap());
        }
        reports.event(id, "answers", Map.of("answers", answers));
    }

    private void drive(String id, JsonObject command) throws Exception {
        LoadRun.Shape shape = new Gson().fromJson(command, LoadRun.Shape.class);
        reports.event(id, "driven", new LoadRun(loaded(), shape).run());
    }

    private void close(String id) {
        long start = System.nanoTime();
        closeModel();
        reports.event(id, "closed", Map.of("ms", Reports.since(start)));
    }

    private void closeModel() {
        PythonModel open = model;
        model = null;
        if (open != null) {
            open.close();
        }
    }

    private PythonModel loaded() {
        PythonModel open = model;
        if (open == null) {
            throw new IllegalStateException("no model is loaded");
        }
        return open;
    }

    private static String idOf(JsonObject command) {
        return command.get("id").getAsString();
    }

    private static long timeout(JsonObject command) {
        JsonElement limit = command.get("timeout_ms");
        return limit == null ? DEFAULT_TIMEOUT_MS : limit.getAsLong();
    }

    /** Whatever a command throws is its answer. */
    private void guarded(String id, Work work) {
        long start = System.nanoTime();
        try {
            work.run();
        } catch (Exception e) {
            reports.error(id, e, Reports.since(start));
        }
    }

    /** How an answer is awaited: tellsFirst asks for an event when its first chunk is there. */
    private record Watch(String id, boolean tellsFirst, long timeoutMs) {}

    @FunctionalInterface
    private interface Work {
        void run() throws Exception;
    }
}
