"""Write the page template of `dvc plots show` with Vega inside, so that plots open without a network."""

import sys
from pathlib import Path


def write(file: Path) -> None:
    """Write the template; the two placeholders are DVC's."""
    import vl_convert

    script = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;").replace("</script", "<\\/script")
    file.write_text(
        "<!DOCTYPE html>\n<html><head><meta charset='utf-8'><title>dier plots</title>{refresh_tag}\n"
        "<style>body{font-family:sans-serif;margin:2em} table{border-spacing:15px}</style>\n"
        f"<script>(function(){{{script}}})()</script>\n"  # a module would run only after the plots that call it
        "</head><body>\n{plot_divs}\n</body></html>\n",
        "utf-8",
    )


if __name__ == "__main__":
    write(Path(sys.argv[1]))
