import java.util.HashSet;
import java.util.Set;
import redis.clients.jedis.DefaultJedisClientConfig;
import redis.clients.jedis.HostAndPort;
import redis.clients.jedis.JedisClientConfig;
import redis.clients.jedis.RedisClusterClient;
import redis.clients.jedis.RedisSentinelClient;
import redis.clients.jedis.UnifiedJedis;

public final class Main {
    public static void main(String[] arguments) throws Exception {
        UnifiedJedis jedis = arguments[0].equals("naive") ? naive() : RedisSettings.connect();
        Load.run((key, value) -> jedis.setex(key, 3600, value));
    }

    /** As the library's own first pages show it. */
    private static UnifiedJedis naive() {
        JedisClientConfig login = DefaultJedisClientConfig.builder().password(System.getenv("REDIS_PASSWORD")).build();
        Set<HostAndPort> nodes = new HashSet<>();
        for (String node : System.getenv("LOAD_NODES").split(",")) {
            nodes.add(HostAndPort.from(node));
        }
        if (System.getenv("LOAD_MODE").equals("cluster")) {
            return RedisClusterClient.builder().nodes(nodes).clientConfig(login).build();
        }
        return RedisSentinelClient.builder()
                .masterName(System.getenv("LOAD_NAME")).sentinels(nodes).clientConfig(login).sentinelClientConfig(login).build();
    }
}
