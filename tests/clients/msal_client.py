"""Gets a token with Microsoft's own library, msal, and prints what msal answers as JSON.

Reads one JSON object from standard input:
  authority   https://login.microsoftonline.com/<tenant>
  client_id   application id
  scope       one scope
  secret      client secret, or
  assertion   federated client assertion
  twice       true: asks again with the same application object, and prints both answers
  capabilities  list of client capabilities
  challenge   claims challenge (JSON text) with which it asks the second time

It has no setting for another host: HTTPS_PROXY and REQUESTS_CA_BUNDLE lead to the fake.
"""

import json
import sys

import msal


def main():
    asked = json.load(sys.stdin)
    if "secret" in asked:
        credential = asked["secret"]
    else:
        credential = {"client_assertion": asked["assertion"]}
    try:
        application = msal.ConfidentialClientApplication(
            asked["client_id"],
            authority=asked["authority"],
            client_credential=credential,
            client_capabilities=asked.get("capabilities"),
        )
    except ValueError as error:
        # msal's answer to an authority whose discovery document it cannot get.
        print(json.dumps([{"authority_error": str(error)}]))
        return
    scopes = [asked["scope"]]
    answers = [application.acquire_token_for_client(scopes=scopes)]
    if asked.get("twice"):
        answers.append(application.acquire_token_for_client(scopes=scopes))
    if "challenge" in asked:
        answers.append(
            application.acquire_token_for_client(
                scopes=scopes, claims_challenge=asked["challenge"]
            )
        )
    print(json.dumps(answers))


if __name__ == "__main__":
    main()
