"""Fails if the public API isn't the one that was last agreed to.

    python3 .ci/public-api.py            compares with public-api.txt beside each manifest
    python3 .ci/public-api.py --write    takes what is there

It reads what `cargo doc --all-features` wrote to target/doc, so no nightly toolchain is
needed. A line is a declaration, an implementation, or a function of one; private fields,
documentation and blanket implementations are left out. A new rustdoc may write some lines
otherwise: then `--write` changes nothing but their form.
"""

import difflib
import html.parser
import pathlib
import re
import sys

LIBRARIES = ["heartbeat-core", "heartbeat-tokio"]
# What a type can lose without a word in its source.
AUTO_TRAITS = re.compile(r"impl\b.*[ !](Send|Sync|Unpin) for ")


def main():
    changed = False
    for library in LIBRARIES:
        now = "\n".join(public_api(library)) + "\n"
        agreed = pathlib.Path(library, "public-api.txt")
        if "--write" in sys.argv:
            agreed.write_text(now)
        difference = list(
            difflib.unified_diff(
                agreed.read_text().splitlines(), now.splitlines(), str(agreed), "now", lineterm=""
            )
        )
        print(*difference, sep="\n", end="\n" if difference else "")
        print(f"{library}: {now.count(chr(10))} lines, {'changed' if difference else 'as agreed'}")
        changed |= bool(difference)
    if changed:
        sys.exit("If that is meant: python3 .ci/public-api.py --write, and a line in CHANGELOG.md.")


def public_api(library):
    root = pathlib.Path("target/doc", library.replace("-", "_"))
    # Pages of items that are gone may still be there, but nothing leads to them.
    items = re.findall(r'<a href="([^"]+\.html)">', (root / "all.html").read_text())
    items = [item for item in items if "." in pathlib.PurePath(item).stem]
    if not items:
        sys.exit(f"{root}: no items are found. Has `cargo doc` run, and is this rustdoc newer?")
    modules = {str(pathlib.PurePath(item).parent / "index.html") for item in items}
    for page in sorted(modules) + sorted(items):
        lines = Page.lines_of((root / page).read_text())
        if not lines and page in items:
            sys.exit(f"{root / page}: nothing is found. Is this rustdoc newer?")
        if lines:
            *path, name = pathlib.PurePath(page).with_suffix("").parts
            yield ""
            yield "## " + "::".join([root.name, *path, name.split(".")[-1]])
            yield from lines


class Page(html.parser.HTMLParser):
    """The declarations on a page of rustdoc's."""

    # Elements without an end.
    VOID = {"br", "hr", "img", "input", "link", "meta", "wbr"}

    @classmethod
    def lines_of(cls, text):
        page = cls()
        page.feed(text)
        return page.lines

    def __init__(self):
        super().__init__()
        self.lines = []
        self.section = ""
        # Of what is being read: kind, text, and how many elements it is deep.
        self.kind, self.text, self.depth, self.hidden = None, "", 0, 0

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        if tag in self.VOID:
            return
        if self.kind:
            self.text += "\n" if tag == "div" else ""
            self.depth += 1
            # "Show 13 variants"
            self.hidden = self.hidden or (self.depth if tag == "summary" else 0)
        elif tag == "h2":
            self.section = attributes.get("id", "")
        else:
            classes = (attributes.get("class") or "").split()
            if "item-decl" in classes:
                self.begin("declaration")
            elif "code-header" in classes:
                self.begin("impl" if tag == "h3" else "member")
            elif (attributes.get("id") or "").startswith("reexport."):
                self.begin("reexport")

    def begin(self, kind):
        self.kind, self.text, self.depth, self.hidden = kind, "", 1, 0

    def handle_data(self, data):
        if not self.hidden:
            self.text += data

    def handle_endtag(self, tag):
        if not self.kind or tag in self.VOID:
            return
        if self.depth == self.hidden:
            self.hidden = 0
        self.depth -= 1
        self.text += "\n" if tag == "div" else ""
        if not self.depth:
            self.note(self.kind, self.text)
            self.kind = None

    def note(self, kind, text):
        # Long ones have line breaks within.
        line = re.sub(r"(?<=[(<]) |,$| ?,? (?=[)])", "", " ".join(text.split()))
        if kind == "declaration":
            self.lines += [line.rstrip() for line in text.splitlines() if line.strip()]
        elif kind == "reexport":
            self.lines.append(line)
        elif self.section == "implementations":
            self.lines.append(line if kind == "impl" else "    " + line)
        elif self.section == "trait-implementations":
            # The functions are the trait's.
            if kind == "impl" or line.startswith("type "):
                self.lines.append(line if kind == "impl" else "    " + line)
        elif self.section == "synthetic-implementations" and AUTO_TRAITS.match(line):
            self.lines.append(line)


main()
