//! Receives words; hands on the manual page language, `man(7)`. What stands between backticks is bold.

use roff::{Inline, Roff, bold, roman};

/// The longest line of a page's source.
const LINE_BYTES: usize = 78;

/// The page's first lines.
pub(crate) fn title(name: &str, section: u8, date: &str) -> String {
    let mut roff = Roff::new();
    let source = concat!("Driftmark ", env!("CARGO_PKG_VERSION"));
    roff.control(
        "TH",
        [
            &*name.to_uppercase(),
            &section.to_string(),
            date,
            source,
            "Driftmark",
        ],
    );
    roff.render()
}

/// The same page in lines that a person can read and a checker likes: at most 80 bytes, where words allow it.
pub(crate) fn folded(page: &str) -> String {
    let mut folded = String::new();
    let (mut as_it_is, mut is_tag) = (false, false);
    for line in page.lines().map(str::trim_end) {
        as_it_is = (as_it_is || line == ".nf") && line != ".fi";
        // The tag of a paragraph is one line, whatever its length.
        if as_it_is || is_tag || line.starts_with('.') {
            folded.push_str(line);
        } else {
            fold(&mut folded, line);
        }
        folded.push('\n');
        is_tag = line == ".TP";
    }
    folded
}

fn fold(folded: &mut String, line: &str) {
    let mut length = 0;
    for word in line.split(' ') {
        if length > 0 && length + 1 + word.len() > LINE_BYTES {
            folded.push('\n');
            length = 0;
            // At the start of a line these two would be commands.
            if word.starts_with(['.', '\'']) {
                folded.push_str("\\&");
            }
        } else if length > 0 {
            folded.push(' ');
            length += 1;
        }
        folded.push_str(word);
        length += word.len();
    }
}

/// What `whatis` and `apropos` read.
pub(crate) fn name(page: &mut String, name: &str, purpose: &str) {
    heading(page, "NAME");
    push(
        page,
        Roff::new().text([roman(format!("{name} - {purpose}"))]),
    );
}

/// A section's heading.
pub(crate) fn heading(page: &mut String, heading: &str) {
    push(page, Roff::new().control("SH", [heading]));
}

/// A heading below one.
pub(crate) fn subheading(page: &mut String, heading: &str) {
    push(
        page,
        Roff::new().control("SS", [&*heading.replace('-', "\\-")]),
    );
}

/// Paragraphs.
pub(crate) fn paragraphs(page: &mut String, paragraphs: &[&str]) {
    for (number, paragraph) in paragraphs.iter().enumerate() {
        if number > 0 {
            push(page, Roff::new().control("PP", []));
        }
        push(page, Roff::new().text(inlines(paragraph)));
    }
}

/// What follows is a paragraph of its own.
pub(crate) fn break_paragraph(page: &mut String) {
    push(page, Roff::new().control("PP", []));
}

/// A word or two in bold, and what is said of them, indented.
pub(crate) fn tagged(page: &mut String, tag: &str, said: &str) {
    push(
        page,
        Roff::new()
            .control("TP", [])
            .text([bold(tag)])
            .text(inlines(said)),
    );
}

/// Lines as they are.
pub(crate) fn verbatim(page: &mut String, lines: &str) {
    let mut roff = Roff::new();
    roff.control("PP", [])
        .control("RS", ["4"])
        .control("nf", []);
    for line in lines.lines() {
        // An empty line would end a paragraph.
        roff.text([roman(if line.is_empty() { "\u{a0}" } else { line })]);
    }
    push(page, roff.control("fi", []).control("RE", []));
}

/// Sections of paragraphs and tags.
pub(crate) fn sections(page: &mut String, sections: &[super::Section]) {
    for section in sections {
        heading(page, section.heading);
        paragraphs(page, section.paragraphs);
        for (tag, said) in section.tags {
            tagged(page, tag, said);
        }
    }
}

/// Text with what stands between backticks in bold.
fn inlines(text: &str) -> Vec<Inline> {
    let part = |(number, part): (usize, &str)| match number % 2 {
        0 => roman(part),
        _ => bold(part),
    };
    let parts = text.split('`').enumerate();
    parts
        .filter(|(_, part)| !part.is_empty())
        .map(part)
        .collect()
}

/// Without the lines that the title has already brought.
pub(crate) fn push(page: &mut String, roff: &Roff) {
    let (rendered, preamble) = (roff.render(), Roff::new().render());
    page.push_str(rendered.strip_prefix(&preamble).unwrap_or(&rendered));
}
