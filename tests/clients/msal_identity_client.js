// Gets tokens of managed identities with @azure/msal-node, Microsoft's authentication library.
//
// Reads a list of JSON objects from standard input:
//   environment  variables that say where the endpoint is
//   client_id    of the identity, or null
//   resource     the API that the token is for
// Prints a list: `token` and `expires_on`, or `error`, what the library says. The library's
// repeating after 429 and 5xx is switched off by its own setting.

const { readFileSync } = require("node:fs");

let known = "";
let library;

// The library keeps the endpoint that it found, and tokens, for the life of a program. So each
// environment gets a library that was loaded anew, as in a program of its own.
function libraryOf(environment) {
  if (known !== JSON.stringify(environment)) {
    known = JSON.stringify(environment);
    for (const module of Object.keys(require.cache)) delete require.cache[module];
    library = require("@azure/msal-node");
  }
  return library;
}

async function answer({ environment, client_id: userAssignedClientId, resource }) {
  Object.assign(process.env, environment);
  try {
    const { ManagedIdentityApplication } = libraryOf(environment);
    const application = new ManagedIdentityApplication({
      managedIdentityIdParams: userAssignedClientId ? { userAssignedClientId } : undefined,
      system: { disableInternalRetries: true },
    });
    const { accessToken, expiresOn } = await application.acquireToken({ resource });
    return { token: accessToken, expires_on: Math.round(expiresOn.getTime() / 1000) };
  } catch (error) {
    return { error: `${error.name}: ${error.message}` };
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
