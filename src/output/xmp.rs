//! An XMP packet that holds the settings as one JSON text.
//!
//! Source: XMP specification, part 1 (ISO 16684-1).

use serde_json::Value;

const OPEN: &str = "<dype:settings>";
const CLOSE: &str = "</dype:settings>";
/// What XML text may not hold as it is, and its stand-in.
const ESCAPES: [(&str, &str); 5] = [("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ("\"", "&quot;"), ("'", "&apos;")];

/// A packet with these settings.
pub fn packet(settings: &Value) -> String {
    // JSON escapes the control characters XML forbids; these two are left, and are only found inside JSON strings.
    let mut text = settings.to_string().replace('\u{fffe}', "\\ufffe").replace('\u{ffff}', "\\uffff");
    for (plain, escaped) in &ESCAPES[..3] {
        text = text.replace(plain, escaped);
    }
    wrap(&format!("<rdf:Description rdf:about=\"\" xmlns:dype=\"urn:dype:\">{OPEN}{text}{CLOSE}</rdf:Description>"))
}

/// A packet around an RDF description.
pub fn wrap(description: &str) -> String {
    format!(
        "<?xpacket begin=\"\u{feff}\" id=\"W5M0MpCehiHzreSzNTczkc9d\"?><x:xmpmeta xmlns:x=\"adobe:ns:meta/\">\
         <rdf:RDF xmlns:rdf=\"http://www.w3.org/1999/02/22-rdf-syntax-ns#\">{description}</rdf:RDF></x:xmpmeta>\
         <?xpacket end=\"r\"?>"
    )
}

/// The JSON text of a packet, if it is one of ours.
pub fn settings_text(packet: &str) -> Option<String> {
    let (_, rest) = packet.split_once(OPEN)?;
    let (text, _) = rest.split_once(CLOSE)?;
    let mut text = text.to_owned();
    for (plain, escaped) in ESCAPES.iter().rev() {
        text = text.replace(escaped, plain);
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_survive_the_packet() {
        for text in ["a<b>&amp;&lt;", "</dype:settings>", "\u{0}\u{1f}\u{7f}\u{fffe}\u{ffff}", "'\"\\ é 山 🏔"] {
            let settings = serde_json::json!({ "prompt": text });
            let packet = packet(&settings);
            assert!(!packet.contains(['\u{0}', '\u{1f}', '\u{fffe}', '\u{ffff}']));
            let read = settings_text(&packet).expect("found");
            assert_eq!(serde_json::from_str::<Value>(&read).expect("JSON"), settings);
        }
        assert_eq!(settings_text("<x:xmpmeta/>"), None);
        assert_eq!(settings_text("<dype:settings>{}"), None);
    }
}
