// Gets tokens of managed identities with @azure/identity, Microsoft's library for Azure SDKs.
//
// Reads a list of JSON objects from standard input:
//   environment  variables that say where the endpoint is
//   client_id    of the identity, or null
//   resource     the API that the token is for
// Prints a list: `token` and `expires_on`, or `error`, what the library says. The library's
// repeating after 429 and 5xx, which takes it a minute, is switched off by its own setting.

const { readFileSync } = require("node:fs");

let known = "";
let library;

// The library keeps the endpoint that it found, and tokens, for the life of a program. So each
// environment gets a library that was loaded anew, as in a program of its own.
function libraryOf(environment) {
  if (known !== JSON.stringify(environment)) {
    known = JSON.stringify(environment);
    for (const module of Object.keys(require.cache)) delete require.cache[module];
    library = require("@azure/identity");
  }
  return library;
}

async function get(credential, resource) {
  try {
    const { token, expiresOnTimestamp } = await credential.getToken(`${resource}/.default`);
    return { token, expires_on: Math.round(expiresOnTimestamp / 1000) };
  } catch (error) {
    return { error: `${error.name}: ${error.message}` };
  }
}

async function answer({ environment, client_id: clientId, resource }) {
  Object.assign(process.env, environment);
  try {
    const { DefaultAzureCredential, ManagedIdentityCredential } = libraryOf(environment);
    const retryOptions = { maxRetries: 0 };
    const options = clientId ? { clientId, retryOptions } : { retryOptions };
    const answer = await get(new ManagedIdentityCredential(options), resource);
    if (answer.token && !clientId) {
      // What most applications write finds it in the same way.
      const again = await get(new DefaultAzureCredential(), resource);
      if (again.token !== answer.token) {
        return { error: `DefaultAzureCredential: ${JSON.stringify(again)}` };
      }
    }
    return answer;
  } finally {
    for (const name of Object.keys(environment)) delete process.env[name];
  }
}

async function main() {
  const answers = [];
  for (const asked of JSON.parse(readFileSync(0, "utf8"))) answers.push(await answer(asked));
  console.log(JSON.stringify(answers));
}

main();
