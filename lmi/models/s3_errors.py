"""What boto3 raises becomes a ModelError that says what to do. By type and error code."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from lmi.core import ModelError
from lmi.models.place import S3Prefix

_ADVICE = {
    "NoSuchBucket": "there is no such bucket; check the name and the region (AWS_REGION)",
    "AccessDenied": "access denied: allow s3:ListBucket and s3:GetObject to these credentials",
    "403": "access denied: allow s3:ListBucket and s3:GetObject to these credentials",
    "InvalidAccessKeyId": "the access key is unknown; check AWS_ACCESS_KEY_ID",
    "SignatureDoesNotMatch": "the secret key is wrong; check AWS_SECRET_ACCESS_KEY",
    "ExpiredToken": "the session token has expired; get new credentials",
    "404": "it went away meanwhile: try again",
    "NoSuchKey": "it went away meanwhile: try again",
}


@contextmanager
def s3_errors(at: S3Prefix) -> Iterator[None]:
    """Around every call of boto3."""
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import (
        BotoCoreError,
        ClientError,
        ConnectionError,
        HTTPClientError,
        NoCredentialsError,
    )

    try:
        yield
    except ClientError as error:
        answer = error.response.get("Error", {})
        code = answer.get("Code", "")
        advice = _ADVICE.get(code, f"S3 answered {code}: {answer.get('Message', '')}")
        raise ModelError(f"{at}: {advice}") from error
    except NoCredentialsError as error:
        raise ModelError(
            f"{at}: no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile in "
            "AWS_PROFILE, or give the machine a role"
        ) from error
    except (ConnectionError, HTTPClientError) as error:
        raise ModelError(
            f"{at}: S3 is out of reach ({error}); check the network, AWS_REGION and "
            "AWS_ENDPOINT_URL"
        ) from error
    except (BotoCoreError, Boto3Error) as error:
        raise ModelError(f"{at}: {error}") from error
