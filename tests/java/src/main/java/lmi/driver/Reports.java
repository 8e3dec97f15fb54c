package lmi.driver;

import com.google.gson.Gson;
import com.google.gson.GsonBuilder;

import java.io.PrintStream;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/** Events, one JSON object a line; from any thread. */
final class Reports {

    private static final double NANOS_PER_MS = 1e6;

    /* NaN stands for a percentile of nothing. */
    private final Gson gson =
            new GsonBuilder()
                    .serializeNulls()
                    .serializeSpecialFloatingPointValues()
                    .disableHtmlEscaping()
                    .create();
    private final PrintStream out;

    Reports(PrintStream out) {
        this.out = out;
    }

    /** Milliseconds since a System.nanoTime. */
    static double since(long start) {
        return (System.nanoTime() - start) / NANOS_PER_MS;
    }

    void event(String id, String name, Map<String, ?> details) {
        Map<String, Object> event = new LinkedHashMap<>();
        event.put("id", id);
        event.put("event", name);
        event.putAll(details);
        String line = gson.toJson(event);
        synchronized (out) {
            out.println(line);
            out.flush();
        }
    }

    /** The exception's type and message, outermost first. */
    void error(String id, Throwable error, double ms) {
        List<String> causes = new ArrayList<>();
        for (Throwable cause = error; cause != null; cause = cause.getCause()) {
            causes.add(cause.getClass().getSimpleName() + ": " + cause.getMessage());
        }
        event(id, "error", Map.of("causes", causes, "ms", ms));
    }
}
