use std::{collections::BTreeSet, path::Path};

use super::*;

const HOSTILE: &str =
    "</script><script>alert(1)</script><img src=x onerror=\"alert('2')\">{{tables}} & <!-- \u{202e}\0 \"' --> ]]>";

fn picture(label: &str, file: &str, facts: &[(&str, &str)]) -> PagePicture {
    let facts = facts.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    PagePicture { label: label.into(), detail: "1.5 s".into(), file: file.into(), size: [64, 48], facts }
}

fn page(pictures: Vec<PagePicture>) -> Page {
    Page {
        title: "a lake".into(),
        about: "48 x 64 px".into(),
        pictures,
        explanations: &[("sharpness", "how \"sharp\"")],
        embed: false,
    }
}

fn written(page: &Page, folder: &Path) -> String {
    let mut bytes = Vec::new();
    page.write(folder, &mut bytes).expect("written");
    String::from_utf8(bytes).expect("UTF-8")
}

/// A tag as a browser reads it: its name, and names and values of its attributes as they stand.
type Tag = (String, Vec<(String, String)>);

/// The tags outside the script and the styles, and the texts between them; a tag ends at the first ">" outside quotes.
fn tags(html: &str) -> (Vec<Tag>, Vec<String>) {
    let (mut tags, mut texts, mut rest) = (Vec::new(), Vec::new(), html);
    while let Some((text, after)) = rest.split_once('<') {
        texts.push(text.to_owned());
        let mut quoted = false;
        let end = after.find(|c| {
            quoted ^= c == '"';
            c == '>' && !quoted
        });
        let (inside, after) = after.split_at(end.expect("the tag ends"));
        let mut words = inside.splitn(2, char::is_whitespace);
        let name = words.next().unwrap_or_default().to_lowercase();
        let mut attributes = Vec::new();
        let mut left = words.next().unwrap_or_default().trim();
        while let Some((name, value)) = left.split_once("=\"") {
            let (value, others) = value.split_once('"').expect("the value ends");
            attributes.push((name.trim().to_owned(), value.to_owned()));
            left = others;
        }
        rest = &after[1..];
        if name == "script" || name == "style" {
            rest = rest.split_once(&format!("</{name}>")).expect("it ends").1;
        }
        tags.push((name, attributes));
    }
    (tags, texts)
}

fn of<'a>(tags: &'a [Tag], name: &str, attribute: &str) -> Vec<&'a str> {
    let tags = tags.iter().filter(|(tag, _)| tag == name);
    tags.flat_map(|(_, all)| all.iter().filter(|(key, _)| key == attribute).map(|(_, value)| value.as_str())).collect()
}

#[test]
fn pictures_are_linked_and_facts_told() {
    let both = [("steps", "4"), ("prompt", "a lake")];
    let one = picture("base", "x/a b.png", &[&both[..], &[("sharpness", "12.000")]].concat());
    let two = picture("dy_yarn:scaling=longest", "x/y/c#?.png", &[&both[..], &[("scaling", "longest")]].concat());
    let html = written(&page(vec![one, two]), Path::new("x"));
    let (tags, texts) = tags(&html);
    assert_eq!(of(&tags, "img", "src"), ["a%20b.png", "y/c%23%3F.png"]);
    assert_eq!(of(&tags, "a", "href"), ["a%20b.png", "y/c%23%3F.png"]);
    assert_eq!((of(&tags, "img", "width"), of(&tags, "img", "height")), (vec!["64"; 2], vec!["48"; 2]));
    assert_eq!(of(&tags, "img", "alt"), ["base", "dy_yarn:scaling=longest"]);
    assert!(of(&tags, "th", "title").contains(&"how &quot;sharp&quot;"));
    let at = |text: &str| texts.iter().position(|found| found == text).unwrap_or_else(|| panic!("{text}: {texts:?}"));
    // What differs stands above what does not, and what a picture goes without is an empty cell.
    assert!(at("What differs") < at("12.000") && at("longest") < at("What they have in common"));
    assert!(at("What they have in common") < at("steps") && texts.iter().filter(|text| *text == "4").count() == 1);
    assert!(html.contains("<td dir=\"auto\">12.000</td><td dir=\"auto\"></td>"));
    assert_eq!(html.matches("{{").count(), 0, "all is filled in");
}

#[test]
fn a_strangers_text_stays_text() {
    let plain = tags(&written(&page(vec![picture("base", "x/a.png", &[("prompt", "a lake")])]), Path::new("x"))).0;
    let hostile = Page {
        title: HOSTILE.into(),
        about: HOSTILE.into(),
        ..page(vec![picture(HOSTILE, "x/<img onerror=alert(3)>'\".png", &[("prompt", HOSTILE)])])
    };
    let html = written(&hostile, Path::new("x"));
    let (found, texts) = tags(&html);
    let names = |tags: &[Tag]| {
        tags.iter().map(|(name, all)| (name.clone(), all.iter().map(|(key, _)| key.clone()).collect())).collect()
    };
    let [plain, found]: [Vec<(String, BTreeSet<String>)>; 2] = [names(&plain), names(&found)];
    assert_eq!(found, plain, "no tag and no attribute more than for a lake");
    // It can be read as it is, but for what turns the direction of writing or is no character.
    let shown = texts.join("").replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"").replace("&#39;", "'");
    let shown = shown.replace("&amp;", "&");
    let told = HOSTILE.replace('\u{202e}', "\\u{202e}").replace('\0', "\\u{0}");
    assert_eq!(shown.matches(&told).count(), 6, "title, heading, line, label twice, prompt: {shown}");
    assert!(html.contains(&format!("src=\"{}\"", "%3Cimg%20onerror%3Dalert%283%29%3E%27%22.png")));
}

#[test]
fn only_the_pages_own_script_may_run() {
    let html = written(&page(vec![picture("base", "x/a.png", &[])]), Path::new("x"));
    let script = html.split_once("<script>").and_then(|(_, rest)| rest.split_once("</script>")).expect("a script").0;
    let hash = base64::Engine::encode(&BASE64_STANDARD, Sha256::digest(script));
    assert!(html.contains(&format!("content=\"script-src 'sha256-{hash}'; object-src 'none'")));
    assert_eq!(html.matches("<script").count(), 1);
    // Nothing comes from elsewhere, and nothing but text is made of what the page says.
    for word in
        ["http:", "https:", "innerHTML", "outerHTML", "insertAdjacent", "document.write", "eval(", "@import", "url("]
    {
        assert!(!html.contains(word), "{word}");
    }
    let (tags, _) = tags(&html);
    assert!(tags.iter().all(|(_, all)| all.iter().all(|(name, _)| !name.starts_with("on"))));
    let ids = tags.iter().flat_map(|(_, all)| all.iter().filter(|(key, _)| key == "id")).map(|(_, id)| id.as_str());
    for id in ids.collect::<Vec<_>>() {
        assert!(script.contains(&format!("#{id}")), "{id} is used");
    }
}

#[test]
fn pictures_are_inside_where_that_is_asked() {
    let folder = tempfile::tempdir().expect("a folder");
    let bytes: Vec<u8> = (0..10_000u32).map(|i| (i * 7 % 256) as u8).collect();
    let mut pictures = Vec::new();
    for (name, kind) in [("a.png", "image/png"), ("b.JPG", "image/jpeg"), ("c.webp", "image/webp")] {
        let file = folder.path().join(name);
        std::fs::write(&file, &bytes).expect("written");
        pictures.push((kind, picture(name, &file.to_string_lossy(), &[])));
    }
    let embedding = Page { embed: true, ..page(pictures.iter().map(|(_, picture)| picture.clone()).collect()) };
    let (tags, texts) = tags(&written(&embedding, folder.path()));
    let data = base64::Engine::encode(&BASE64_STANDARD, &bytes);
    let expected: Vec<String> = pictures.iter().map(|(kind, _)| format!("data:{kind};base64,{data}")).collect();
    assert_eq!(of(&tags, "img", "src"), expected);
    assert!(of(&tags, "a", "href").is_empty() && texts.contains(&"b.JPG".to_owned()), "a name, and no link");
    let gone = Page { embed: true, ..page(vec![picture("x", "nowhere/x.png", &[])]) };
    assert!(gone.write(folder.path(), &mut Vec::new()).is_err());
}
