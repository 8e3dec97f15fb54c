"""Deploy the image as a SageMaker endpoint: `python deploy.py --help`. Needs boto3.

The container gets its options from the environment; a model from S3 (`--model-data`, an
uncompressed prefix) is placed in /opt/ml/model by the platform, one of the hub is named by
HF_MODEL_ID. `--dry-run` prints the requests and sends nothing.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

START_UP_SECONDS = 1200  # downloading and loading; the platform's default is 600


def requests(arguments: argparse.Namespace) -> list[tuple[str, dict[str, Any]]]:
    """The calls of the SageMaker API, in order."""
    container: dict[str, Any] = {
        "Image": arguments.image,
        "Environment": dict(pair.split("=", 1) for pair in arguments.env),
    }
    if arguments.model_data:
        source = {
            "S3Uri": arguments.model_data,
            "S3DataType": "S3Prefix",
            "CompressionType": "None",
        }
        container["ModelDataSource"] = {"S3DataSource": source}
    variant = {
        "VariantName": "AllTraffic",
        "ModelName": arguments.name,
        "InstanceType": arguments.instance_type,
        "InitialInstanceCount": 1,
        "ContainerStartupHealthCheckTimeoutInSeconds": START_UP_SECONDS,
        "ModelDataDownloadTimeoutInSeconds": START_UP_SECONDS,
    }
    name = arguments.name
    return [
        (
            "create_model",
            {
                "ModelName": name,
                "ExecutionRoleArn": arguments.role,
                "PrimaryContainer": container,
            },
        ),
        ("create_endpoint_config", {"EndpointConfigName": name, "ProductionVariants": [variant]}),
        ("create_endpoint", {"EndpointName": name, "EndpointConfigName": name}),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--name", default="lmi", help="of the model and the endpoint")
    parser.add_argument("--image", required=True, help="the image in ECR, with its tag")
    parser.add_argument("--role", required=True, help="the ARN of the execution role")
    parser.add_argument("--instance-type", default="ml.c7i.2xlarge")
    parser.add_argument("--model-data", help="s3://bucket/prefix/ of a model's folder")
    parser.add_argument("--env", nargs="*", default=[], metavar="NAME=VALUE", help="options")
    parser.add_argument("--dry-run", action="store_true", help="print the requests only")
    arguments = parser.parse_args()
    if arguments.dry_run:
        print(json.dumps([{"call": call, **body} for call, body in requests(arguments)], indent=2))
        return

    import boto3

    client = boto3.client("sagemaker")
    for call, body in requests(arguments):
        print(f"{call} ...")
        getattr(client, call)(**body)
    print("waiting until the endpoint is in service (some minutes) ...")
    client.get_waiter("endpoint_in_service").wait(EndpointName=arguments.name)
    print(f"in service: aws sagemaker-runtime invoke-endpoint --endpoint-name {arguments.name} ...")


if __name__ == "__main__":
    main()
