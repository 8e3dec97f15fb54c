package lmi.driver;

import ai.djl.inference.streaming.ChunkedBytesSupplier;
import ai.djl.modality.Output;
import ai.djl.ndarray.BytesSupplier;
import ai.djl.util.Pair;

import java.io.ByteArrayOutputStream;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import java.util.concurrent.TimeUnit;

/** One Output and, where it is a stream, its chunks with the time of each. */
final class Answer {

    private final Output output;
    private final long start;
    private final ByteArrayOutputStream body = new ByteArrayOutputStream();
    private final List<Integer> sizes = new ArrayList<>();
    private final List<Double> times = new ArrayList<>();
    private final List<String> keys = new ArrayList<>();
    private boolean stream;
    private String trouble;

    /** start: of the request, as System.nanoTime tells it. */
    Answer(Output output, long start) {
        this.output = output;
        this.start = start;
    }

    /** Reads to the end. A chunk that does not come in time ends the reading and is told. */
    void read(long timeoutMs, Runnable onFirst) throws InterruptedException {
        for (Pair<String, BytesSupplier> pair : output.getContent()) {
            keys.add(pair.getKey());
            if (pair.getValue() instanceof ChunkedBytesSupplier chunks) {
                stream = true;
                try {
                    /* This loop is the model server's own. */
                    while (chunks.hasNext()) {
                        add(chunks.nextChunk(timeoutMs, TimeUnit.MILLISECONDS), onFirst);
                    }
                } catch (IllegalStateException e) {
                    trouble = e.getMessage();
                }
            } else {
                add(pair.getValue().getAsBytes(), onFirst);
            }
        }
    }

    private void add(byte[] chunk, Runnable onFirst) {
        if (sizes.isEmpty()) {
            onFirst.run();
        }
        times.add(Reports.since(start));
        sizes.add(chunk.length);
        body.writeBytes(chunk);
    }

    String trouble() {
        return trouble;
    }

    int code() {
        return output.getCode();
    }

    List<Double> times() {
        return times;
    }

    /** code, message, headers, whether it was a stream, its body, and each chunk's size and time. */
    Map<String, Object> toMap() {
        Map<String, Object> map = new LinkedHashMap<>();
        map.put("code", output.getCode());
        map.put("message", output.getMessage());
        Map<String, String> headers = new TreeMap<>(String.CASE_INSENSITIVE_ORDER);
        headers.putAll(output.getProperties());
        map.put("headers", headers);
        map.put("stream", stream);
        map.put("keys", keys);
        map.put("body", body.toString(StandardCharsets.UTF_8));
        map.put("sizes", sizes);
        map.put("times", times);
        map.put("trouble", trouble);
        map.put("ms", Reports.since(start));
        return map;
    }
}
