"""The page of the addresses: made from the OpenAPI description, with an example that runs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from html import escape
from typing import Any

from foresweep.serving.asked import EXAMPLE

PAGE_SCRIPT = """\
document.getElementById("run").addEventListener("click", async () => {
  const shown = document.getElementById("answer");
  shown.textContent = "...";
  try {
    const answer = await fetch("/forecast", {
      method: "POST",
      headers: {"content-type": "application/json"},
      body: document.getElementById("body").value,
    });
    shown.textContent = answer.status + "\\n" + JSON.stringify(await answer.json(), null, 2);
  } catch (error) {
    shown.textContent = String(error);
  }
});
"""


def page(spec: Mapping[str, Any]) -> str:
    """HTML in the dashboard's look, without a style, a script or a font of anybody else's."""
    rows = []
    for path, methods in spec["paths"].items():
        for method, said in methods.items():
            codes = ", ".join(said.get("responses", {}))
            name = f"{method.upper()} {path}"
            if method == "get":
                where = f'<a href="{escape(path)}">{escape(name)}</a>'
            else:
                where = escape(name)
            rows.append(
                f'<td class="code">{where}</td><td>{escape(said.get("summary", ""))}</td>'
                f"<td>{escape(codes)}</td>"
            )
    table = "".join(f"<tr>{row}</tr>" for row in rows)
    example = escape(json.dumps(EXAMPLE))
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Forecasts · foresweep</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="stylesheet" href="/pages.css">
<link rel="icon" href="/icon.svg" type="image/svg+xml"></head>
<body><main><h1>Forecasts</h1>
<p class="lead">{escape(spec["info"]["description"])} The whole description, for tools:
<a href="/openapi.json">/openapi.json</a>.</p>
<div class="scroll"><table><thead><tr><th>address</th><th>what</th><th>answers</th></tr></thead>
<tbody>{table}</tbody></table></div>
<h2>Try it</h2>
<p><label for="body">POST /forecast with this body, which runs as it stands:</label></p>
<textarea class="whole" id="body" rows="12" spellcheck="false">{example}</textarea>
<p><button id="run" type="button">Forecast</button></p>
<pre class="log" id="answer" role="status" tabindex="0"></pre>
</main><script src="/page.js"></script></body></html>
"""
