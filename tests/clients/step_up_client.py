"""A web application that answers a step-up with Microsoft's own library, msal.

Reads one JSON object from standard input:
  authority     https://login.microsoftonline.com/<tenant>
  client_id     application id
  secret        client secret
  redirect_uri  where the browser comes back
  scope         one scope of the API
  capable       false: does not tell Entra that it answers claims challenges
  url           what to POST to
Prints one JSON object: `answers`, the status and challenge of each call to the API, and `end`, how it
ended: `done`, or what msal or the browser said.

It has no setting for another host: HTTPS_PROXY and REQUESTS_CA_BUNDLE lead to the fake.
"""

import base64
import json
import sys
from urllib.parse import parse_qsl, urlsplit

import msal
import requests


def claims_challenge_of(response):
    """What a claims challenge asks for, as msal wants it; None where there is none."""
    scheme, _, parameters = response.headers.get("WWW-Authenticate", "").partition(" ")
    parameters = requests.utils.parse_dict_header(parameters)
    if scheme.lower() != "bearer" or parameters.get("error") != "insufficient_claims":
        return None
    return base64.b64decode(parameters["claims"], validate=True).decode()


def visit(address):
    """The browser: gives the query with which Entra sends it back."""
    page = requests.get(address, allow_redirects=False)
    if page.status_code != 302:
        raise RuntimeError(f"the browser shows: {page.text}")
    return dict(parse_qsl(urlsplit(page.headers["Location"]).query))


def token_for(application, asked, claims_challenge=None):
    scopes = [asked["scope"]]
    for account in application.get_accounts():
        result = application.acquire_token_silent(
            scopes, account=account, claims_challenge=claims_challenge
        )
        if result and "access_token" in result:
            return result["access_token"]
    flow = application.initiate_auth_code_flow(
        scopes, redirect_uri=asked["redirect_uri"], claims_challenge=claims_challenge
    )
    result = application.acquire_token_by_auth_code_flow(flow, visit(flow["auth_uri"]))
    if "access_token" not in result:
        raise RuntimeError(result["error_description"])
    return result["access_token"]


def call(asked, token, answers):
    response = requests.post(asked["url"], json={}, headers={"Authorization": f"Bearer {token}"})
    challenge = response.headers.get("WWW-Authenticate")
    answers.append({"status": response.status_code, "challenge": challenge})
    return response


def main():
    asked = json.load(sys.stdin)
    application = msal.ConfidentialClientApplication(
        asked["client_id"],
        authority=asked["authority"],
        client_credential=asked["secret"],
        client_capabilities=["cp1"] if asked.get("capable", True) else None,
    )
    answers = []
    try:
        response = call(asked, token_for(application, asked), answers)
        claims_challenge = claims_challenge_of(response)
        if claims_challenge:
            call(asked, token_for(application, asked, claims_challenge), answers)
            # From now on msal has the stronger token, and nobody is asked again.
            call(asked, token_for(application, asked), answers)
        end = "done"
    except RuntimeError as error:
        end = str(error)
    print(json.dumps({"answers": answers, "end": end}))


if __name__ == "__main__":
    main()
