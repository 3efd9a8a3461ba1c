// A real oidc-provider on the port given, with one client that asks and one that calls. Beside the
// provider's own endpoints, GET /refresh-token gives a live refresh token of the second one.
import crypto from "node:crypto";
import { Provider } from "oidc-provider";

const [port, secret] = process.argv.slice(2);
const key = crypto.generateKeyPairSync("rsa", { modulusLength: 2048 }).privateKey;
const provider = new Provider(`http://127.0.0.1:${port}`, {
  jwks: { keys: [{ ...key.export({ format: "jwk" }), kid: "k1", use: "sig", alg: "RS256" }] },
  clients: [
    { client_id: "gateway", client_secret: secret, grant_types: [], redirect_uris: [], response_types: [] },
    {
      client_id: "web-shop-client",
      client_secret: "clients-secret",
      grant_types: ["authorization_code", "client_credentials", "refresh_token"],
      redirect_uris: ["http://127.0.0.1:1/"],
      response_types: ["code"],
      scope: "openid offline_access read",
    },
  ],
  scopes: ["openid", "offline_access", "read"],
  ttl: { AccessToken: 600, ClientCredentials: 600, Grant: 600, RefreshToken: 600 },
  features: {
    clientCredentials: { enabled: true },
    devInteractions: { enabled: false },
    introspection: { enabled: true, allowedPolicy: () => true },
    resourceIndicators: {
      enabled: true,
      defaultResource: () => "urn:shop-api",
      useGrantedResource: () => true,
      getResourceServerInfo: (ctx, resource) => ({
        scope: "read",
        audience: "urn:shop-api",
        accessTokenFormat: resource.endsWith("jwt") ? "jwt" : "opaque",
        jwt: { sign: { alg: "RS256" } },
      }),
    },
  },
});

provider.use(async (ctx, next) => {
  if (ctx.path !== "/refresh-token") return next();
  const client = await provider.Client.find("web-shop-client");
  const grant = new provider.Grant({ accountId: "carol", clientId: client.clientId });
  grant.addOIDCScope("openid offline_access");
  const token = new provider.RefreshToken({
    accountId: "carol",
    client,
    claims: {},
    grantId: await grant.save(),
    gty: "authorization_code",
    scope: "openid offline_access",
  });
  ctx.body = await token.save();
});
provider.listen(Number(port), "127.0.0.1");
