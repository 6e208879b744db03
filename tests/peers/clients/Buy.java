// GET URL with the JDK's own client; prints the answer as one JSON line: java Buy.java URL
import java.net.Authenticator;
import java.net.PasswordAuthentication;
import java.net.ProxySelector;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse.BodyHandlers;
import java.util.stream.Collectors;

public class Buy {
    // As for every proxy that wants to know who calls: Java reads no credentials from the environment by itself.
    static class FromEnvironment extends Authenticator {
        @Override
        protected PasswordAuthentication getPasswordAuthentication() {
            String[] who = URI.create(System.getenv("HTTPS_PROXY")).getUserInfo().split(":", 2);
            return getRequestorType() == RequestorType.PROXY ? new PasswordAuthentication(who[0], who[1].toCharArray()) : null;
        }
    }

    public static void main(String[] arguments) throws Exception {
        HttpClient client = HttpClient.newBuilder().proxy(ProxySelector.getDefault()).authenticator(new FromEnvironment()).build();
        var answer = client.send(HttpRequest.newBuilder(URI.create(arguments[0])).build(), BodyHandlers.ofString());
        String headers = answer.headers().map().entrySet().stream()
            .map(h -> quoted(h.getKey()) + ":" + quoted(h.getValue().get(0))).collect(Collectors.joining(","));
        System.out.println("{\"status\":" + answer.statusCode() + ",\"headers\":{" + headers + "},\"body\":" + quoted(answer.body()) + "}");
    }

    static String quoted(String text) {
        return "\"" + text.replace("\\", "\\\\").replace("\"", "\\\"").replace("\n", "\\n") + "\"";
    }
}
