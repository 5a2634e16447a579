import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import org.springframework.boot.SpringApplication;
import org.springframework.boot.autoconfigure.EnableAutoConfiguration;
import org.springframework.context.annotation.Configuration;
import org.springframework.data.redis.core.StringRedisTemplate;

@Configuration
@EnableAutoConfiguration
public class Main {
    public static void main(String[] arguments) throws Exception {
        System.setProperty("spring.data.redis.repositories.enabled", "false"); // starts in half the time
        boolean naive = arguments[0].equals("naive");
        List<Class<?>> sources = new ArrayList<>(List.of(Main.class));
        if (!naive) {
            sources.add(Class.forName("RedisSettings"));
        }
        SpringApplication application = new SpringApplication(sources.toArray(new Class<?>[0]));
        StringRedisTemplate template = application.run(naive ? naive() : new String[0]).getBean(StringRedisTemplate.class);
        Load.run((key, value) -> template.opsForValue().set(key, value, Duration.ofHours(1)));
    }

    /** Addresses and passwords, and nothing else. */
    private static String[] naive() {
        String prefix = "--spring.redis.", password = System.getenv("REDIS_PASSWORD"), nodes = System.getenv("LOAD_NODES");
        if (System.getenv("LOAD_MODE").equals("cluster")) {
            return new String[] {
                "--spring.config.name=nothing", prefix + "cluster.nodes=" + nodes, prefix + "password=" + password
            };
        }
        return new String[] {
            "--spring.config.name=nothing",
            prefix + "sentinel.master=" + System.getenv("LOAD_NAME"),
            prefix + "sentinel.nodes=" + nodes,
            prefix + "sentinel.password=" + password,
            prefix + "password=" + password
        };
    }
}
