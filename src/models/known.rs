//! A model as runs know it: what it is called, and what it computes with.

use std::path::{Path, PathBuf};

use serde::{Serialize, Serializer};
use serde_json::{Value, json};

use super::{Contents, Identity, Origin, SchedulerConfig};

/// A model as pictures and checkpoints say it.
#[derive(Debug, Clone, PartialEq)]
pub struct KnownModel {
    /// What it is called.
    pub identity: Identity,
    /// What its parts hold.
    pub contents: Contents,
    /// The numbers of its schedule.
    pub schedule: SchedulerConfig,
}

impl KnownModel {
    /// What of it differs from a model as a picture says it, in words; empty when nothing does. A picture from before contents
    /// were told is compared by name.
    pub fn differences(&self, said: &Value) -> Vec<String> {
        let Some(contents) = said.get("contents").and_then(Value::as_object) else {
            return if self.is_called(said) { vec![] } else { vec!["model".to_owned()] };
        };
        let of = |part: &str| self.contents.get(part).map(String::as_str);
        let ours = self.contents.keys().copied();
        let theirs = contents.keys().map(String::as_str).filter(|part| of(part).is_none());
        let differs = |part: &&str| contents.get(*part).and_then(Value::as_str) != of(part);
        let mut differing: Vec<String> = ours.chain(theirs).filter(differs).map(str::to_owned).collect();
        if said.get("schedule") != Some(&json!(self.schedule)) {
            differing.push("scheduler".to_owned());
        }
        differing
    }

    /// Whether that model has the same name, wherever both were named from.
    fn is_called(&self, said: &Value) -> bool {
        let Identity { model, revision, layout, parts, .. } = &self.identity;
        let text = |key: &str| said.get(key).and_then(Value::as_str);
        let is_same = |a: &str, b: &str| a == b || absolute(a) == absolute(b);
        let no_parts = serde_json::Map::new();
        let theirs = said.get("parts").and_then(Value::as_object).unwrap_or(&no_parts);
        let has = |(part, origin): (&&str, &Origin)| {
            theirs.get(*part).and_then(Value::as_str).is_some_and(|theirs| is_same(origin.text(), theirs))
        };
        text("revision") == revision.as_deref()
            && text("layout") == Some(layout)
            && text("model")
                .is_some_and(|theirs| if revision.is_some() { theirs == model } else { is_same(model, theirs) })
            && theirs.len() == parts.len()
            && parts.iter().all(has)
    }
}

impl Serialize for KnownModel {
    /// As [`Identity`], with the paths of this disk absolute, so that they hold from everywhere.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut identity = self.identity.clone();
        if identity.revision.is_none() {
            identity.model = absolute(&identity.model).display().to_string();
        }
        for origin in identity.parts.values_mut() {
            if let Origin::Disk(path) = origin {
                *path = absolute(path).display().to_string();
            }
        }
        let mut json = json!(identity);
        json["contents"] = json!(self.contents);
        json["schedule"] = json!(self.schedule);
        json.serialize(serializer)
    }
}

/// The path from the root, without `.` and a separator at its end; links stay, since what lies beside them may be meant.
fn absolute(path: &str) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| Path::new(path).to_path_buf()).components().collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn known(model: &str) -> KnownModel {
        let (parts, variants) = (BTreeMap::new(), BTreeMap::new());
        let identity = Identity { model: model.to_owned(), revision: None, layout: "diffusers", parts, variants };
        let contents = [("transformer", "aa"), ("vae", "bb")].map(|(part, text)| (part, text.to_owned())).into();
        KnownModel { identity, contents, schedule: SchedulerConfig::flux1_dev() }
    }

    #[test]
    fn what_it_computes_with_makes_a_model_and_not_its_name() {
        let (one, other) = (known("m1"), known("elsewhere/m2"));
        let said = json!(one);
        assert_eq!(other.differences(&said), Vec::<String>::new());
        let text: Value = serde_json::from_str(&said.to_string()).expect("JSON");
        assert_eq!(one.differences(&text), Vec::<String>::new(), "after a trip through text");
        let mut vae = other.clone();
        vae.contents.insert("vae", "cc".to_owned());
        assert_eq!(vae.differences(&said), ["vae"]);
        vae.contents.remove("vae");
        vae.schedule.max_shift = 1.2;
        assert_eq!(vae.differences(&said), ["vae", "scheduler"]);
    }

    #[test]
    fn pictures_from_before_contents_were_told_are_known_by_name() {
        let said = |model: &str| json!({ "model": model, "layout": "diffusers" });
        for way in ["m1", "m1/", "./m1", &absolute("m1").display().to_string()] {
            assert!(known("m1").differences(&said(way)).is_empty(), "{way}");
            assert!(known(way).differences(&said("m1")).is_empty(), "{way}");
        }
        assert_eq!(known("m1").differences(&said("m2")), ["model"]);
        assert_eq!(known("m1").differences(&json!({ "model": "m1", "layout": "single-file" })), ["model"]);
        let with_part = json!({ "model": "m1", "layout": "diffusers", "parts": { "vae": "x" } });
        assert_eq!(known("m1").differences(&with_part), ["model"]);
    }

    #[test]
    fn paths_are_told_from_the_root_and_names_as_they_are() {
        let said = json!(known("./m1/"));
        assert_eq!(said["model"], absolute("m1").display().to_string());
        let mut hub = known("owner/name");
        hub.identity.revision = Some("abc".to_owned());
        assert_eq!(json!(hub)["model"], "owner/name");
    }
}
