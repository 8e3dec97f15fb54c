package lmi.driver;

import ai.djl.modality.Input;
import ai.djl.translate.TranslateException;

import java.util.ArrayList;
import java.util.Collections;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.Callable;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.atomic.AtomicInteger;

/** A closed loop: each stream sends its next request when its last answer is whole. */
final class LoadRun {

    private static final long CHUNK_TIMEOUT_MS = 120_000;
    private static final double NANOS_PER_SECOND = 1e9;

    private final PythonModel model;
    private final Shape shape;
    private final AtomicInteger next = new AtomicInteger();

    LoadRun(PythonModel model, Shape shape) {
        this.model = model;
        this.shape = shape;
    }

    /**
     * streams at once, for so many seconds after the warm-up; bodies are taken in turn. An answer
     * counts when it ends inside the measured time. Or, with requests, exactly so many, from the
     * first one sent to the last answer's end.
     */
    static final class Shape {
        int streams = 1;
        int requests;
        double seconds = 10;
        double warmup = 1;
        List<String> bodies = List.of();
        String contentType = "application/json";
    }

    /** answers, errors, seconds measured, chunks, and the percentiles in milliseconds. */
    Map<String, Object> run() throws InterruptedException, ExecutionException {
        boolean counted = shape.requests > 0;
        long start = System.nanoTime();
        long begin = counted ? start : start + (long) (shape.warmup * NANOS_PER_SECOND);
        long end = counted ? Long.MAX_VALUE : begin + (long) (shape.seconds * NANOS_PER_SECOND);
        ExecutorService pool = Executors.newFixedThreadPool(shape.streams);
        List<Callable<Tally>> clients = Collections.nCopies(shape.streams, () -> stream(begin, end));
        Tally all = new Tally();
        for (Future<Tally> tally : pool.invokeAll(clients)) {
            all.add(tally.get());
        }
        pool.shutdown();
        Map<String, Object> figures = new LinkedHashMap<>();
        double seconds = (System.nanoTime() - start) / NANOS_PER_SECOND;
        figures.put("seconds", counted ? seconds : shape.seconds);
        figures.putAll(all.toMap());
        return figures;
    }

    private Tally stream(long begin, long end) throws InterruptedException, TranslateException {
        Tally tally = new Tally();
        while (System.nanoTime() < end) {
            Input input = new Input();
            input.addProperty("Content-Type", shape.contentType);
            int turn = next.getAndIncrement();
            if (shape.requests > 0 && turn >= shape.requests) {
                break;
            }
            input.add("data", shape.bodies.get(Math.floorMod(turn, shape.bodies.size())));
            long start = System.nanoTime();
            Answer answer = new Answer(model.predict(input), start);
            answer.read(CHUNK_TIMEOUT_MS, () -> {});
            long now = System.nanoTime();
            if (now >= begin && now <= end) {
                tally.count(answer, Reports.since(start));
            }
        }
        return tally;
    }

    /** What came of a stream's requests. */
    private static final class Tally {

        private int answers;
        private int errors;
        private long chunks;
        private final List<Double> firsts = new ArrayList<>();
        private final List<Double> wholes = new ArrayList<>();

        void count(Answer answer, double ms) {
            if (answer.code() != 200 || answer.trouble() != null || answer.times().isEmpty()) {
                errors++;
                return;
            }
            answers++;
            chunks += answer.times().size();
            firsts.add(answer.times().get(0));
            wholes.add(ms);
        }

        void add(Tally other) {
            answers += other.answers;
            errors += other.errors;
            chunks += other.chunks;
            firsts.addAll(other.firsts);
            wholes.addAll(other.wholes);
        }

        Map<String, Object> toMap() {
            return Map.of(
                    "answers", answers,
                    "errors", errors,
                    "chunks", chunks,
                    "first_p50_ms", percentile(firsts, 0.50),
                    "first_p95_ms", percentile(firsts, 0.95),
                    "whole_p50_ms", percentile(wholes, 0.50),
                    "whole_p95_ms", percentile(wholes, 0.95));
        }

        private static double percentile(List<Double> values, double share) {
            if (values.isEmpty()) {
                return Double.NaN;
            }
            List<Double> sorted = new ArrayList<>(values);
            Collections.sort(sorted);
            return sorted.get((int) Math.min(sorted.size() - 1, Math.floor(share * sorted.size())));
        }
    }
}
