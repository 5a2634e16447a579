import io.lettuce.core.RedisClient;
import io.lettuce.core.RedisURI;
import io.lettuce.core.api.sync.RedisStringCommands;
import io.lettuce.core.cluster.RedisClusterClient;
import java.util.ArrayList;
import java.util.List;

public final class Main {
    public static void main(String[] arguments) throws Exception {
        RedisStringCommands<String, String> commands =
                arguments[0].equals("naive") ? naive() : RedisSettings.connect().sync();
        Load.run((key, value) -> commands.setex(key, 3600, value));
    }

    /** As the library's own first pages show it. */
    private static RedisStringCommands<String, String> naive() {
        boolean cluster = System.getenv("LOAD_MODE").equals("cluster");
        char[] password = System.getenv("REDIS_PASSWORD").toCharArray();
        List<RedisURI> nodes = new ArrayList<>();
        for (String node : System.getenv("LOAD_NODES").split(",")) {
            String[] parts = node.split(":");
            nodes.add(RedisURI.builder().withHost(parts[0]).withPort(Integer.parseInt(parts[1])).withPassword(password).build());
        }
        if (cluster) {
            return RedisClusterClient.create(nodes).connect().sync();
        }
        RedisURI.Builder uri = RedisURI.builder().withSentinelMasterId(System.getenv("LOAD_NAME")).withPassword(password);
        nodes.forEach(uri::withSentinel);
        return RedisClient.create(uri.build()).connect().sync();
    }
}
