import java.io.ByteArrayInputStream;
import java.io.DataInputStream;
import java.io.DataOutputStream;
import java.io.BufferedInputStream;
import java.io.BufferedOutputStream;
import java.io.IOException;
import java.io.StringReader;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;
import java.util.Properties;

/**
 * Parses texts with java.util.Properties.
 *
 * <p>Standard input: texts until the end, each an int (number of UTF-16 code units) and the units, big endian.
 * Standard output: for each text an int, -1 if it is malformed, else the number of strings (key, value, key, value,
 * ... in the order of the assignments), and each string in the form of the texts.
 */
public final class PropertiesOracle {

    /** Keeps every assignment, also those that a later one overwrites. */
    private static final class Recorder extends Properties {
        private static final long serialVersionUID = 1L;
        private final transient List<String> assigned = new ArrayList<>();

        @Override
        public synchronized Object put(Object key, Object value) {
            assigned.add((String) key);
            assigned.add((String) value);
            return super.put(key, value);
        }
    }

    private interface Load {
        void into(Properties properties) throws IOException;
    }

    private static List<String> assignments(Load load) throws IOException {
        Recorder recorder = new Recorder();
        try {
            load.into(recorder);
        } catch (IllegalArgumentException malformed) {
            return null;
        }
        return recorder.assigned;
    }

    private static String read(DataInputStream in, int units) throws IOException {
        StringBuilder text = new StringBuilder(units);
        for (int i = 0; i < units; i++) {
            text.append(in.readChar());
        }
        return text.toString();
    }

    public static void main(String[] args) throws IOException {
        DataInputStream in = new DataInputStream(new BufferedInputStream(System.in));
        DataOutputStream out = new DataOutputStream(new BufferedOutputStream(System.out));
        while (in.available() > 0) {
            String text = read(in, in.readInt());
            List<String> assigned = assignments(p -> p.load(new StringReader(text)));
            if (text.chars().allMatch(unit -> unit < 256)) {
                byte[] bytes = text.getBytes(StandardCharsets.ISO_8859_1);
                List<String> streamed = assignments(p -> p.load(new ByteArrayInputStream(bytes)));
                if (!String.valueOf(assigned).equals(String.valueOf(streamed))) {
                    throw new IllegalStateException("the two forms of load differ for: " + text);
                }
            }
            out.writeInt(assigned == null ? -1 : assigned.size());
            if (assigned != null) {
                for (String string : assigned) {
                    out.writeInt(string.length());
                    out.writeChars(string);
                }
            }
        }
        out.flush();
    }
}
