"""Gets tokens of managed identities with msal, Microsoft's authentication library for Python.

Reads a list of JSON objects from standard input:
  environment  variables that say where the endpoint is
  client_id    of the identity, or null
  resource     the API that the token is for
Prints a list: `token` and `expires_on`, or `error`, what the library says.
"""

import json
import os
import sys
import time

import msal
import requests


def answer(asked):
    os.environ.update(asked["environment"])
    try:
        client_id = asked["client_id"]
        identity = (
            msal.UserAssignedManagedIdentity(client_id=client_id)
            if client_id
            else msal.SystemAssignedManagedIdentity()
        )
        client = msal.ManagedIdentityClient(identity, http_client=requests.Session())
        result = client.acquire_token_for_client(resource=asked["resource"])
        if "access_token" in result:
            expires_on = int(time.time()) + int(result["expires_in"])
            return {"token": result["access_token"], "expires_on": expires_on}
        return {"error": json.dumps(result)}
    except Exception as error:  # msal raises what the HTTP library does
        return {"error": f"{type(error).__name__}: {error}"}
    finally:
        for name in asked["environment"]:
            del os.environ[name]


if __name__ == "__main__":
    print(json.dumps([answer(asked) for asked in json.load(sys.stdin)]))
