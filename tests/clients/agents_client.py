"""Gets tokens as agents of the Microsoft 365 Agents SDK do that have Microsoft's auth sidecar beside
them: with microsoft-agents-authentication-entra-auth-sidecar, as it is.

Reads a list of JSON objects from standard input:
  url      where the sidecar is
  service  name of the downstream API
  scopes   list of scopes
  agent    id of an agent identity, or null
  tenant   tenant id, with an agent
Prints a list: `token`, or `error`, what the library raises; and `healthy`, what it makes of the
sidecar. The library's repeating after 429 and 5xx is switched off by its own setting.
"""

import asyncio
import json
import sys

from microsoft_agents.authentication.entra_auth_sidecar import SidecarAuth


async def answer(asked):
    configuration = {
        "SIDECAR_BASE_URL": asked["url"],
        "SERVICE_NAME": asked["service"],
        "SCOPES": asked["scopes"],
        "RETRY_COUNT": 0,
    }
    auth = SidecarAuth(configuration)
    healthy = await auth.is_healthy()
    try:
        if asked["agent"]:
            token, _ = await auth.get_agentic_instance_token(asked["tenant"], asked["agent"])
        else:
            token = await auth.get_access_token("", asked["scopes"])
        return {"token": token, "healthy": healthy}
    except Exception as error:  # the library raises several kinds
        return {"error": f"{type(error).__name__}: {error}", "healthy": healthy}
    finally:
        await auth.close()


async def main():
    print(json.dumps([await answer(asked) for asked in json.load(sys.stdin)]))


if __name__ == "__main__":
    asyncio.run(main())
