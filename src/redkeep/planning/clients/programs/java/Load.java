import java.util.ArrayList;
import java.util.List;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.atomic.AtomicIntegerArray;

/** Writers for each hash tag, and their counters (see README.md beside this folder). Keys expire after an hour. */
public final class Load {
    public interface Writer {
        void set(String key, String value) throws Exception;
    }

    private static final int BUCKETS = 360_000, BUCKET_MS = 10, PAUSE_MS = 20;
    private static final long START = System.currentTimeMillis();
    private static final Set<String> TOLD = ConcurrentHashMap.newKeySet();

    public static void run(Writer writer) throws Exception {
        String[] tags = System.getenv("LOAD_TAGS").split(",");
        int workers = Integer.parseInt(System.getenv("LOAD_WORKERS"));
        List<AtomicIntegerArray[]> counters = new ArrayList<>();
        for (String tag : tags) {
            AtomicIntegerArray[] its = {new AtomicIntegerArray(BUCKETS), new AtomicIntegerArray(BUCKETS)};
            counters.add(its);
            for (int i = 0; i < workers; i++) {
                String key = "redkeep:drill:{" + tag + "}:client-" + i;
                Thread thread = new Thread(() -> write(writer, tag, key, its));
                thread.setDaemon(true);
                thread.start();
            }
        }
        Thread end = new Thread(() -> {
            try {
                while (System.in.read() >= 0) {
                    continue;
                }
            } catch (Exception gone) {
                // the same
            }
            Runtime.getRuntime().halt(0);
        });
        end.setDaemon(true);
        end.start();
        int from = 0;
        while (true) {
            Thread.sleep(250);
            int to = (int) ((System.currentTimeMillis() - START) / BUCKET_MS) - 1;
            for (int i = 0; i < tags.length; i++) {
                AtomicIntegerArray[] its = counters.get(i);
                say("B " + (START + (long) from * BUCKET_MS) + " " + tags[i] + " " + list(its[0], from, to) + " " + list(its[1], from, to));
            }
            from = to;
        }
    }

    private static void write(Writer writer, String tag, String key, AtomicIntegerArray[] counters) {
        for (long number = 0; ; number++) {
            long began = System.currentTimeMillis();
            int kind = 0;
            try {
                writer.set(key, "value-" + number);
            } catch (Throwable error) {
                kind = 1;
                String text = String.valueOf(error).replaceAll("\\s+", " ");
                if (TOLD.size() < 20 && TOLD.add(text.replaceAll("[0-9]+", "N"))) {
                    say("E " + tag + " " + text);
                }
            }
            long now = System.currentTimeMillis();
            counters[kind].incrementAndGet((int) ((now - START) / BUCKET_MS));
            try {
                Thread.sleep(Math.max(1, PAUSE_MS - (now - began)));
            } catch (InterruptedException never) {
                return;
            }
        }
    }

    private static String list(AtomicIntegerArray counters, int from, int to) {
        StringBuilder text = new StringBuilder();
        for (int i = from; i < to; i++) {
            text.append(i == from ? "" : ",").append(counters.get(i));
        }
        return text.toString();
    }

    private static synchronized void say(String line) {
        System.out.println(line);
        System.out.flush();
    }
}
