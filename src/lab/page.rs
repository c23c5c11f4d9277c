//! The page of a comparison: one HTML file that needs nothing else but the pictures it links to, or holds. Pictures lie side by side
//! with pan and zoom in step, or two of them on each other with a slider between; settings and times stand beneath.
//!
//! The page itself is `page.html`. What comes from recipes is a stranger's text: here it becomes text of HTML, and a
//! policy in the page lets no script run but its own.

use std::{
    fmt::Write as _,
    fs::File,
    io::{self, Write},
    path::{Path, PathBuf},
};

use base64::{prelude::BASE64_STANDARD, write::EncoderWriter};
use sha2::{Digest, Sha256};

use super::link;
use crate::base::printable::printable;

/// The page, with `{{names}}` where something is filled in.
const TEMPLATE: &str = include_str!("page.html");

/// A comparison as a page.
#[derive(Debug, Clone, PartialEq)]
pub struct Page {
    /// Its heading, such as the prompt.
    pub title: String,
    /// A line below.
    pub about: String,
    /// The pictures, in their order; at least one.
    pub pictures: Vec<PagePicture>,
    /// What the names of facts mean.
    pub explanations: &'static [(&'static str, &'static str)],
    /// Whether the pictures are in the page; else it links to their files.
    pub embed: bool,
}

/// A picture of a page.
#[derive(Debug, Clone, PartialEq)]
pub struct PagePicture {
    /// What it is called.
    pub label: String,
    /// What stands beside the label, such as how long it took.
    pub detail: String,
    /// Its file: PNG, JPEG or WebP.
    pub file: PathBuf,
    /// Width and height in pixels.
    pub size: [u32; 2],
    /// What is told of it, by name.
    pub facts: Vec<(String, String)>,
}

impl Page {
    /// Writes it as a file of `folder`, from where its links go.
    ///
    /// # Errors
    /// When it cannot be written, or a picture that is to be in it cannot be read.
    pub fn write(&self, folder: &Path, to: &mut dyn Write) -> io::Result<()> {
        let mut rest = TEMPLATE;
        while let Some((before, (name, after))) =
            rest.split_once("{{").and_then(|(before, after)| Some((before, after.split_once("}}")?)))
        {
            to.write_all(before.as_bytes())?;
            match name {
                "title" => to.write_all(escaped(&self.title).as_bytes())?,
                "about" => to.write_all(escaped(&self.about).as_bytes())?,
                "policy" => to.write_all(policy().as_bytes())?,
                "pictures" => self.pictures.iter().try_for_each(|picture| self.pane(picture, folder, to))?,
                "tables" => to.write_all(self.tables(folder).as_bytes())?,
                other => return Err(io::Error::other(format!("the page's template asks for {other}"))),
            }
            rest = after;
        }
        to.write_all(rest.as_bytes())
    }

    fn pane(&self, picture: &PagePicture, folder: &Path, to: &mut dyn Write) -> io::Result<()> {
        let ([width, height], label) = (picture.size, escaped(&picture.label));
        write!(
            to,
            "<figure class=\"pane\"><img width=\"{width}\" height=\"{height}\" decoding=\"async\" alt=\"{label}\" src=\""
        )?;
        if self.embed {
            write!(to, "data:{};base64,", media_type(&picture.file))?;
            let mut encoder = EncoderWriter::new(&mut *to, &BASE64_STANDARD);
            io::copy(&mut File::open(&picture.file)?, &mut encoder)?;
            encoder.finish()?;
        } else {
            // Percent-encoded: nothing in it means anything to HTML.
            to.write_all(link::from_folder(folder, &picture.file).as_bytes())?;
        }
        let detail = escaped(&picture.detail);
        writeln!(to, "\"><figcaption><b dir=\"auto\">{label}</b> <span>{detail}</span></figcaption></figure>")
    }

    /// What differs from picture to picture, a column each, and what they have in common.
    fn tables(&self, folder: &Path) -> String {
        let mut names: Vec<&str> = Vec::new();
        for (name, _) in self.pictures.iter().flat_map(|picture| &picture.facts) {
            if !names.contains(&name.as_str()) {
                names.push(name);
            }
        }
        let is_common =
            |name: &&str| self.pictures.iter().all(|picture| picture.fact(name) == self.pictures[0].fact(name));
        let (common, differing): (Vec<&str>, Vec<&str>) = names.into_iter().partition(is_common);
        let mut text = "<h2>What differs</h2>\n<div class=\"wide\"><table>\n<thead><tr><td></td>".to_owned();
        self.pictures.iter().for_each(|picture| {
            let _ = write!(text, "<th scope=\"col\" dir=\"auto\">{}</th>", breakable(&picture.label));
        });
        text.push_str("</tr></thead>\n<tbody>\n");
        differing.iter().for_each(|name| self.row(&mut text, name, &self.pictures));
        self.files(&mut text, folder);
        text.push_str("</tbody></table></div>\n");
        if !common.is_empty() {
            text.push_str("<details><summary>What they have in common</summary>\n<div class=\"wide\"><table><tbody>\n");
            common.iter().for_each(|name| self.row(&mut text, name, &self.pictures[..1]));
            text.push_str("</tbody></table></div></details>\n");
        }
        text
    }

    fn row(&self, text: &mut String, name: &str, pictures: &[PagePicture]) {
        let meaning = self.explanations.iter().find(|(known, _)| *known == name);
        let meaning = meaning.map_or(String::new(), |(_, meaning)| format!(" title=\"{}\"", escaped(meaning)));
        let _ = write!(text, "<tr><th scope=\"row\"{meaning}>{}</th>", escaped(&name.replace('_', " ")));
        for picture in pictures {
            let _ = write!(text, "<td dir=\"auto\">{}</td>", escaped(picture.fact(name).unwrap_or_default()));
        }
        text.push_str("</tr>\n");
    }

    fn files(&self, text: &mut String, folder: &Path) {
        text.push_str("<tr><th scope=\"row\">file</th>");
        for PagePicture { file, .. } in &self.pictures {
            let name = breakable(&file.file_name().unwrap_or_default().to_string_lossy());
            let _ = match self.embed {
                true => write!(text, "<td dir=\"auto\">{name}</td>"),
                false => {
                    write!(text, "<td dir=\"auto\"><a href=\"{}\">{name}</a></td>", link::from_folder(folder, file))
                }
            };
        }
        text.push_str("</tr>\n");
    }
}

impl PagePicture {
    fn fact(&self, name: &str) -> Option<&str> {
        self.facts.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// Lets the page's own script run, and no other; nothing is fetched but pictures.
fn policy() -> String {
    let script = TEMPLATE.split_once("<script>").and_then(|(_, rest)| rest.split_once("</script>"));
    let hash = base64::Engine::encode(&BASE64_STANDARD, Sha256::digest(script.map_or("", |(script, _)| script)));
    format!(
        "script-src 'sha256-{hash}'; object-src 'none'; frame-src 'none'; connect-src 'none'; base-uri 'none'; form-action 'none'"
    )
}

/// A text as HTML, between tags or in a quoted attribute; what would steer a reader's eyes is written as its code.
fn escaped(text: &str) -> String {
    let text = printable(text).replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    text.replace('"', "&quot;").replace('\'', "&#39;")
}

/// A name as HTML whose lines may end between its parts.
fn breakable(name: &str) -> String {
    escaped(name).replace(':', ":<wbr>").replace('_', "_<wbr>")
}

/// The kind of a picture's file, as browsers name it.
fn media_type(file: &Path) -> &'static str {
    let ending = file.extension().map(|ending| ending.to_string_lossy().to_lowercase());
    match ending.as_deref() {
        Some("jpg" | "jpeg") => "image/jpeg",
        Some("webp") => "image/webp",
        _ => "image/png",
    }
}

#[cfg(test)]
mod tests;
