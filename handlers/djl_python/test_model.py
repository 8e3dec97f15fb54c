"""Trying a handler by hand."""

from lmi.custom.stock.trial import (
    TestHandler,
    create_3p_request,
    create_concurrent_batch_request,
    create_json_request,
    create_npz_request,
    create_numpy_request,
    create_request,
    create_text_request,
    extract_output_as_bytes,
    extract_output_as_input,
    extract_output_as_npz,
    extract_output_as_numpy,
    extract_output_as_string,
    main,
)

__all__ = [
    "TestHandler",
    "create_3p_request",
    "create_concurrent_batch_request",
    "create_json_request",
    "create_npz_request",
    "create_numpy_request",
    "create_request",
    "create_text_request",
    "extract_output_as_bytes",
    "extract_output_as_input",
    "extract_output_as_npz",
    "extract_output_as_numpy",
    "extract_output_as_string",
    "main",
]

if __name__ == "__main__":
    raise SystemExit(main())
