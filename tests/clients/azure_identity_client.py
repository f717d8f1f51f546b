"""Gets tokens of managed identities with azure-identity, Microsoft's library for Azure SDKs.

Reads a list of JSON objects from standard input:
  environment  variables that say where the endpoint is
  client_id    of the identity, or null
  resource     the API that the token is for
Prints a list: `token` and `expires_on`, or `error`, what the library says. The library's repeating
after 429 and 5xx, which takes it half a minute, is switched off by its own setting.
"""

import json
import os
import sys

from azure.core.exceptions import ClientAuthenticationError
from azure.identity import DefaultAzureCredential, ManagedIdentityCredential


def get(credential, resource):
    try:
        token = credential.get_token(resource + "/.default")
        return {"token": token.token, "expires_on": token.expires_on}
    except ClientAuthenticationError as error:
        return {"error": f"{type(error).__name__}: {error}"}


def answer(asked):
    os.environ.update(asked["environment"])
    try:
        options = {"client_id": asked["client_id"]} if asked["client_id"] else {}
        credential = ManagedIdentityCredential(retry_total=0, **options)
        answer = get(credential, asked["resource"])
        if "token" in answer and not asked["client_id"]:
            # What most applications write finds it in the same way.
            again = get(DefaultAzureCredential(), asked["resource"])
            if again.get("token") != answer["token"]:
                return {"error": f"DefaultAzureCredential: {again}"}
        return answer
    finally:
        for name in asked["environment"]:
            del os.environ[name]


if __name__ == "__main__":
    print(json.dumps([answer(asked) for asked in json.load(sys.stdin)]))
