"""Bodies as pydantic models: what may be sent and what is answered, one file a noun. The OpenAPI page is made from them."""
