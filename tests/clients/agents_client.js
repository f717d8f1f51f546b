// Gets tokens as agents of the Microsoft 365 Agents SDK do that have Microsoft's auth sidecar beside
// them: with the provider in @microsoft/agents-hosting, as it is.
//
// Reads a list of JSON objects from standard input:
//   url      where the sidecar is
//   service  name of the downstream API
//   scopes   list of scopes
//   agent    id of an agent identity, or null
//   tenant   tenant id, with an agent
// Prints a list: `token`, or `error`, what the library throws; and `healthy`, what it makes of the
// sidecar. The library's repeating after 429 and 5xx is switched off by its own setting.

const { readFileSync } = require("node:fs");
const { SidecarAuthProvider } = require("@microsoft/agents-hosting");

async function answer({ url, service, scopes, agent, tenant }) {
  const settings = { sidecarBaseUrl: url, serviceName: service, scopes, retryCount: 0 };
  const provider = new SidecarAuthProvider(settings);
  const healthy = await provider.isHealthy();
  try {
    const token = agent
      ? await provider.getAgenticInstanceToken(tenant, agent)
      : await provider.getAccessToken(scopes[0]);
    return { token, healthy };
  } catch (error) {
    return { error: `${error.name}: ${error.message}`, healthy };
  }
}

async function main() {
  const answers = [];
  for (const asked of JSON.parse(readFileSync(0, "utf8"))) answers.push(await answer(asked));
  console.log(JSON.stringify(answers));
}

main();
