import java.util.HashMap;
import java.util.Map;
import org.apache.qpid.server.SystemLauncher;

/** Starts Apache Qpid Broker-J with the configuration whose URL is the only argument. */
public final class Broker {
    public static void main(String[] arguments) throws Exception {
        Map<String, Object> attributes = new HashMap<>();
        attributes.put("type", "Memory");
        attributes.put("initialConfigurationLocation", arguments[0]);
        attributes.put("startupLoggedToSystemOut", "false");
        new SystemLauncher().startup(attributes);
    }
}
