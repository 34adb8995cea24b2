"""Write the documents that are made from the code: `python -m bullmq_proxy.gateway.schema`, in the project's folder."""

from __future__ import annotations

from pathlib import Path

from bullmq_proxy.gateway.schema import asyncapi_yaml, client_files, functions_markdown, openapi_yaml
from bullmq_proxy.gateway.schema.page_tables import fill


def write(root: Path) -> None:
    """Write the pages that are made as a whole, and the generated tables in the others."""
    documents = {
        root / "docs/functions.md": functions_markdown(),
        root / "docs/asyncapi.yaml": asyncapi_yaml(),
        root / "docs/openapi.yaml": openapi_yaml(),
        **{root / path: text for path, text in client_files(root).items()},
    }
    for page in (*root.glob("*.md"), *root.glob("docs/**/*.md")):
        documents.setdefault(page, fill(page.read_text(encoding="utf-8")))
    for path, text in documents.items():
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    write(Path())
