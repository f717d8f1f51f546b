"""Gets tokens with Microsoft's own library, msal, and prints what msal answers as JSON.

Reads a list of JSON objects from standard input, one for each application:
  authority     https://login.microsoftonline.com/<tenant>
  client_id     application id
  scope         scopes, with spaces between them
  secret        client secret, or
  assertion     federated client assertion, or
  certificate   PEM of the certificate, with private_key, the PEM of its key; with sha1 msal is told
                the thumbprint only, and signs in the older way, or
  identity      client id of a managed identity whose token is the assertion; identity_host is where
                the metadata service is
  user_token    asks on behalf of its user
  twice         true: asks again with the same application object
  capabilities  list of client capabilities
  challenge     claims challenge (JSON text) with which it asks in the end
Prints a list with the list of answers of each.

It has no setting for another host: HTTPS_PROXY and REQUESTS_CA_BUNDLE lead to the fake.
"""

import json
import os
import sys

import msal
import requests

EXCHANGE = "api://AzureADTokenExchange"


def credential(asked):
    if "secret" in asked:
        return asked["secret"]
    if "certificate" in asked:
        named = (
            {"thumbprint": asked["sha1"]}
            if "sha1" in asked
            else {"public_certificate": asked["certificate"]}
        )
        return {"private_key": asked["private_key"], **named}
    if "identity" in asked:
        return {"client_assertion": lambda: identity_token(asked)}
    return {"client_assertion": asked["assertion"]}


def identity_token(asked):
    """What msal's own client of the metadata service gets for the exchange."""
    os.environ["AZURE_POD_IDENTITY_AUTHORITY_HOST"] = asked["identity_host"]
    identity = msal.UserAssignedManagedIdentity(client_id=asked["identity"])
    client = msal.ManagedIdentityClient(identity, http_client=requests.Session())
    return client.acquire_token_for_client(resource=EXCHANGE)["access_token"]


def answers(asked):
    try:
        application = msal.ConfidentialClientApplication(
            asked["client_id"],
            authority=asked["authority"],
            client_credential=credential(asked),
            client_capabilities=asked.get("capabilities"),
        )
    except ValueError as error:
        # msal's answer to an authority whose discovery document it cannot get.
        return [{"authority_error": str(error)}]
    scopes = asked["scope"].split(" ")

    def ask(challenge=None):
        if "user_token" in asked:
            return application.acquire_token_on_behalf_of(
                asked["user_token"], scopes=scopes, claims_challenge=challenge
            )
        return application.acquire_token_for_client(scopes=scopes, claims_challenge=challenge)

    given = [ask()]
    if asked.get("twice"):
        given.append(ask())
    if "challenge" in asked:
        given.append(ask(asked["challenge"]))
    return given


if __name__ == "__main__":
    print(json.dumps([answers(asked) for asked in json.load(sys.stdin)]))
