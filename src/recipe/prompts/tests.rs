use proptest::prelude::*;

use super::*;
use crate::{
    methods::{Method, Thresholds},
    recipe::Mu,
};

fn read(text: impl AsRef<[u8]>) -> Result<Vec<Line>> {
    read_prompts("prompts.jsonl", text.as_ref())
}

fn only(text: &str) -> Line {
    let mut lines = read(text).expect(text);
    assert_eq!(lines.len(), 1, "{text}");
    lines.remove(0)
}

/// The message and the hint for a file whose third line is `line`.
fn refused(line: impl AsRef<[u8]>) -> (String, String) {
    let text = [b"# comment\na castle\n", line.as_ref(), b"\na lighthouse\n"].concat();
    let error = read(text).expect_err("a bad line");
    assert_eq!(error.exit_code(), 2);
    let message = error.to_string();
    assert!(message.starts_with("prompts.jsonl line 3: "), "{message}");
    (message["prompts.jsonl line 3: ".len()..].to_owned(), error.hint().expect("a hint"))
}

#[test]
fn plain_lines_are_prompts_and_comments_and_blank_lines_are_not() {
    let lines = read("\u{feff}# a comment\r\n\r\n  a castle, \"old\"  \r\n\t\n #another\na sea\u{a0}# of green")
        .expect("reads");
    let found: Vec<_> = lines.iter().map(|line| (line.number, line.prompt.as_str())).collect();
    assert_eq!(found, [(3, "a castle, \"old\""), (6, "a sea\u{a0}# of green")]);
    assert!(lines.iter().all(|line| line.overrides == Wanted::default()));
}

#[test]
fn a_json_line_sets_every_flag() {
    let line = only(
        r#"{"prompt": " a castle ", "seed": 18446744073709551615, "method": "ntk", "dype": false, "dype_scale": 0,
        "dype_exponent": 1.5, "dype_thresholds": "power", "base_resolution": 512, "width": 2048, "height": 65536,
        "steps": 4, "guidance": -1, "mu": 0.5, "rng": "torch-cuda:a100", "max_sequence_length": 256, "output": "x/"}"#
            .replace('\n', " ")
            .as_str(),
    );
    assert_eq!(line.prompt, "a castle");
    let expected = Wanted {
        seed: Some(u64::MAX),
        method: Some(Method::NTK),
        dype: Some(false),
        dype_scale: Some(0.0),
        dype_exponent: Some(1.5),
        dype_thresholds: Some(Thresholds::Power),
        base_resolution: Some(512),
        width: Some(2048),
        height: Some(65_536),
        steps: Some(4),
        guidance: Some(-1.0),
        mu: Some(Mu::Value(0.5)),
        rng: Some("torch-cuda:a100".parse().expect("a card")),
        max_sequence_length: Some(256),
        ..Wanted::default()
    };
    assert_eq!(line.overrides, expected);
    assert_eq!(line.output, Some("x/".into()));
}

#[test]
fn keys_come_in_kebab_and_snake_case() {
    let kebab = only(r#"{"prompt": "p", "no-dype": true, "dype-scale": 2, "max-sequence-length": 7, "mu": "stock"}"#);
    let snake = only(r#"{"prompt": "p", "no_dype": true, "dype_scale": 2, "max_sequence_length": 7, "mu": "stock"}"#);
    assert_eq!(kebab, snake);
    let o = kebab.overrides;
    assert_eq!((o.dype, o.dype_scale, o.max_sequence_length, o.mu), (Some(false), Some(2.0), Some(7), Some(Mu::Stock)));
    assert_eq!(only(r#"{"prompt": "p", "no_dype": false}"#).overrides.dype, Some(true));
}

#[test]
fn plain_and_json_lines_may_be_mixed() {
    let lines = read("a castle\n{\"prompt\": \"a sea\", \"seed\": 0}\n# end\na hill").expect("reads");
    let found: Vec<_> = lines.iter().map(|l| (l.number, l.prompt.as_str(), l.overrides.seed)).collect();
    assert_eq!(found, [(1, "a castle", None), (2, "a sea", Some(0)), (4, "a hill", None)]);
}

#[test]
fn an_unknown_key_names_the_nearest() {
    let (what, hint) = refused(r#"{"prompt": "p", "widht": 2048}"#);
    assert_eq!(what, "unknown key \"widht\"");
    assert!(hint.starts_with("did you mean \"width\"?"), "{hint}");
    assert!(hint.contains("max_sequence_length"));
    let (_, hint) = refused(r#"{"prompt": "p", "Guidance-Scale": 2048}"#);
    assert!(hint.starts_with("did you mean \"guidance\"?"), "{hint}");
    let (_, hint) = refused(r#"{"prompt": "p", "zzz": 1}"#);
    assert!(hint.starts_with("the keys are"), "{hint}");
}

#[test]
fn wrong_types_and_values_say_what_was_found_and_wanted() {
    let cases = [
        (r#""seed": -2"#, "seed is -2", "0 to 18446744073709551615"),
        (r#""seed": 18446744073709551616"#, "seed is 1.8446744073709552e+19", "0 to 18446744073709551615"),
        (r#""seed": 7.5"#, "seed is 7.5", "a whole number"),
        (r#""seed": "7.5""#, "seed is \"7.5\"", "a whole number"),
        (r#""seed": "dice""#, "seed is \"dice\"", "\"random\""),
        (r#""steps": -1"#, "steps is -1", "1 to 10000"),
        (r#""steps": 1e300"#, "steps is 1e+300", "1 to 10000"),
        (r#""steps": """#, "steps is \"\"", "1 to 10000"),
        (r#""seed": null"#, "seed is null", "a whole number"),
        (r#""method": "yam""#, "method is \"yam\"", "base, ntk, yarn"),
        (r#""method": 1"#, "method is 1", "base, ntk, yarn"),
        (r#""dype": "no""#, "dype is \"no\"", "true or false"),
        (r#""no-dype": 1"#, "no_dype is 1", "true or false"),
        (r#""dype_scale": -0.1"#, "dype_scale is -0.1", "0 or more"),
        (r#""dype-exponent": "-2""#, "dype_exponent is \"-2\"", "0 or more"),
        (r#""dype-exponent": "nan""#, "dype_exponent is \"nan\"", "0 or more"),
        (r#""dype_thresholds": "sum""#, "dype_thresholds is \"sum\"", "product, power"),
        (r#""base_resolution": 15"#, "base_resolution is 15", "16 to 65536"),
        (r#""width": 65537"#, "width is 65537", "16 to 65536"),
        (r#""height": 1024.5"#, "height is 1024.5", "16 to 65536"),
        (r#""steps": 0"#, "steps is 0", "1 to 10000"),
        (r#""guidance": "high""#, "guidance is \"high\"", "a number"),
        (r#""mu": "big""#, "mu is \"big\"", "\"stock\""),
        (r#""mu": "inf""#, "mu is \"inf\"", "\"stock\""),
        (r#""mu": true"#, "mu is true", "\"stock\""),
        (r#""rng": "dice""#, "rng is \"dice\"", "torch-cpu"),
        (r#""rng": "torch-cuda:h10""#, "rng is \"torch-cuda:h10\"", "h100"),
        (r#""max_sequence_length": 1025"#, "max_sequence_length is 1025", "2 to 1024"),
        (r#""output": """#, "output is \"\"", "a path"),
        (r#""output": "a\u0000b""#, "output is \"a\\u0000b\"", "a path"),
        (r#""output": {"a": [1]}"#, "output is {\"a\":[1]}", "a path"),
    ];
    for (pair, expected, wanted) in cases {
        let (what, hint) = refused(format!(r#"{{"prompt": "p", {pair}}}"#));
        assert_eq!(what, expected);
        assert!(hint.contains(wanted), "{pair}: {hint}");
    }
}

#[test]
fn a_line_needs_one_prompt() {
    assert_eq!(refused(r#"{"seed": 1}"#).0, "no prompt");
    assert_eq!(refused("{}").0, "no prompt");
    assert_eq!(only(r#"{"prompt": " \t"}"#).prompt, "", "whether that is meant, who reads it says");
    assert_eq!(refused(r#"{"prompt": ["p"]}"#).0, "prompt is [\"p\"]");
}

#[test]
fn a_flag_that_is_given_twice_is_refused() {
    for (pairs, flag) in [
        (r#""seed": 1, "seed": 1"#, "seed"),
        (r#""dype": true, "no-dype": true"#, "dype"),
        (r#""dype_scale": 1, "dype-scale": 2"#, "dype_scale"),
        (r#""prompt": "q""#, "prompt"),
    ] {
        assert_eq!(refused(format!(r#"{{"prompt": "p", {pairs}}}"#)).0, format!("{flag} is given twice"));
    }
}

#[test]
fn a_line_that_is_no_json_object_says_where() {
    let (what, hint) = refused("{red|blue} castle");
    assert_eq!(what, "not a JSON object: key must be a string, column 2");
    assert!(hint.contains("starts with {"));
    for line in
        ["{", r#"{"prompt": "p"} {"prompt": "q"}"#, r#"{"prompt": "p",}"#, r#"{"prompt": "p", "guidance": 1e999}"#]
    {
        assert!(refused(line).0.starts_with("not a JSON object: "), "{line}");
    }
    assert!(refused(format!("{{\"prompt\": {}", "[".repeat(100_000))).0.starts_with("not a JSON object: recursion"));
}

#[test]
fn bytes_that_are_no_text_are_refused() {
    let (what, hint) = refused(b"caf\xe9");
    assert_eq!(what, "not UTF-8 (byte 4 of the line)");
    assert!(hint.contains("UTF-8"));
    let utf16 = read(b"\xff\xfea\0\n\0").expect_err("UTF-16");
    assert_eq!(utf16.to_string(), "prompts.jsonl line 1: this looks like UTF-16");
}

#[test]
fn an_array_is_read_as_it_is_meant_on_one_line_or_on_several() {
    let found = |text: &str| -> Vec<(usize, String, Option<usize>)> {
        read(text).expect("reads").into_iter().map(|line| (line.number, line.prompt, line.overrides.steps)).collect()
    };
    let expected =
        |lines: [usize; 2]| vec![(lines[0], "a cat".to_owned(), None), (lines[1], "a dog, [red]".to_owned(), Some(3))];
    assert_eq!(found(r#"["a cat", {"prompt": "a dog, [red]", "steps": 3}]"#), expected([1, 1]));
    let pretty =
        "\u{feff}[\r\n  \"a cat\",\r\n  {\r\n    \"prompt\": \"a dog, [red]\",\r\n    \"steps\": 3\r\n  }\r\n]\r\n";
    assert_eq!(found(pretty), expected([2, 3]));
    let mixed = format!("# cats\n{}\na hill\n", pretty.trim_start_matches('\u{feff}').replace('\r', ""));
    let all = found(&mixed);
    assert_eq!(all[..2], expected([3, 4]));
    assert_eq!(all[2], (10, "a hill".to_owned(), None));
    assert_eq!(found("[cat:dog:0.5] in snow\n[1girl, solo]\n[red] fox").len(), 3, "prompts of other programs are text");
    assert_eq!(read("[]\n").expect_err("nothing").to_string(), "prompts.jsonl holds no prompt");
}

#[test]
fn an_array_that_is_broken_names_the_line() {
    for (text, line, what) in [
        ("[\n  \"a\",\n  3\n]", 3, "a prompt in quotes, or a JSON object"),
        ("[\n  \"a\",\n  {\"prompt\": \"b\", \"stepz\": 3}\n]", 3, "unknown key \"stepz\""),
        ("[\n  {\n    \"prompt\": \"b\",\n    \"steps\": 0\n  }\n]", 2, "steps is 0"),
        ("[\"a\" \"b\"]", 1, "expected `,` or `]`"),
        ("[\"a\",\n\"b\"", 2, "expected `,` or `]`"),
        ("[\"a\",]", 1, "not a JSON array"),
        ("[\"a\"] and more", 1, "\"and more\" follows it"),
        ("[{\"steps\": 3}]", 1, "no prompt"),
        ("a\n[\n{", 3, "not a JSON array"),
    ] {
        let error = read(text).expect_err(text);
        assert_eq!(error.exit_code(), 2);
        let told = error.to_string();
        assert!(told.starts_with(&format!("prompts.jsonl line {line}: ")) && told.contains(what), "{text}: {told}");
        assert!(error.hint().is_some());
    }
}

#[test]
fn lines_of_other_programs_are_refused_and_text_is_not() {
    for line in [
        "--prompt \"a cat\" --steps 3",
        "a cat --ar 16:9",
        "a cat --negative_prompt=dogs",
        "\"a cat\" -s30 -W512 -C7.5",
        "a cat -s 30",
        "-n 3 a cat",
    ] {
        let (what, hint) = refused(line);
        assert!(what.contains("looks like a flag") && hint.contains("JSON"), "{line}: {what}");
    }
    for line in
        ["a cat -- a dog", "a well-lit room", "9 -5 degrees", "- a list", "a cat -a dog", "x --", "half -- -half"]
    {
        assert_eq!(only(line).prompt, line);
    }
    assert_eq!(only(r#"{"prompt": "a cat --ar 16:9"}"#).prompt, "a cat --ar 16:9");
}

#[test]
fn tables_and_settings_of_other_formats_are_refused_and_text_is_not() {
    for (text, line, what) in [
        ("prompt,seed\na cat,3", 1, "\"prompt,seed\" is the head of a table"),
        ("\"seed\";\"prompt\"\n3;a cat", 1, "the head of a table"),
        ("# list\nPrompt\tSteps\na cat\t3", 2, "the head of a table"),
        ("- prompt: a cat\n  seed: 3", 1, "\"prompt:\" is a setting"),
        ("---\n- a cat", 1, "\"---\""),
        ("prompt: |\n  a cat", 1, "\"prompt:\" is a setting"),
        ("a cat\nNegative prompt: dogs\nSteps: 20, Sampler: Euler", 2, "\"Negative prompt:\" is a setting"),
        ("a cat\nSteps: 20, Sampler: Euler, Seed: 1", 2, "\"Steps:\" is a setting"),
    ] {
        let error = read(text).expect_err(text);
        let told = error.to_string();
        assert!(told.starts_with(&format!("prompts.jsonl line {line}: ")) && told.contains(what), "{text}: {told}");
        assert!(error.hint().expect("advice").contains("JSON"), "{text}");
    }
    for line in [
        "a sign, a seed",
        "prompt, quick and clean",
        "width, height and depth",
        "steps: a way up",
        "a prompt: go",
        "- a cat",
    ] {
        assert_eq!(only(line).prompt, line);
    }
    assert_eq!(only(r#"{"prompt": "prompt: go"}"#).prompt, "prompt: go");
}

#[test]
fn lines_may_end_as_those_of_an_old_mac() {
    let prompts: Vec<(usize, String)> =
        read("a\rb\r\r{\"prompt\": \"c\"}\r\nd").expect("reads").into_iter().map(|l| (l.number, l.prompt)).collect();
    assert_eq!(prompts, [(1, "a"), (2, "b"), (4, "c"), (5, "d")].map(|(number, text)| (number, text.to_owned())));
}

#[test]
fn numbers_are_read_however_they_are_written() {
    let line = only(r#"{"prompt": "p", "seed": 42.0, "steps": "7", "width": 64.0, "guidance": "3.5", "mu": "1.25"}"#);
    let o = line.overrides;
    assert_eq!(
        (o.seed, o.steps, o.width, o.guidance, o.mu),
        (Some(42), Some(7), Some(64), Some(3.5), Some(Mu::Value(1.25)))
    );
    assert_eq!(only(r#"{"prompt": "p", "seed": "18446744073709551615"}"#).overrides.seed, Some(u64::MAX));
}

#[test]
fn a_fresh_seed_is_drawn_for_each_line_that_asks() {
    let asked = [r#""random""#, "-1", r#""-1""#, "-1.0"];
    let text = asked.map(|seed| format!(r#"{{"prompt": "p", "seed": {seed}}}"#)).join("\n");
    let seeds: Vec<u64> = read(&text).expect("reads").iter().map(|line| line.overrides.seed.expect("drawn")).collect();
    assert!(seeds.iter().all(|seed| *seed < 1 << 32 && crate::recipe::is_drawn(*seed)), "{seeds:?}");
    assert!(seeds.windows(2).any(|pair| pair[0] != pair[1]), "{seeds:?}");
}

#[test]
fn a_nul_or_utf16_without_a_mark_is_no_prompt() {
    let utf16_of = |bytes: fn(u16) -> [u8; 2]| -> Vec<u8> { "a cat\n".encode_utf16().flat_map(bytes).collect() };
    assert!(refused(utf16_of(u16::to_le_bytes)).0.contains("looks like UTF-16"));
    assert!(
        read(utf16_of(u16::to_be_bytes)).expect_err("UTF-16").to_string().contains("line 1: this looks like UTF-16")
    );
    for (mark, utf16) in [(&b"\xff\xfe"[..], utf16_of(u16::to_le_bytes)), (b"\xfe\xff", utf16_of(u16::to_be_bytes))] {
        let error = read([mark, &utf16].concat()).expect_err("UTF-16");
        assert!(error.to_string().contains("line 1: this looks like UTF-16"), "{error}");
        assert!(error.hint().expect("advice").contains("iconv -f UTF-16 "));
    }
    let utf32: Vec<u8> = "a cat\n".chars().flat_map(|c| u32::from(c).to_le_bytes()).collect();
    for text in [utf32.clone(), [b"\xff\xfe\0\0", &utf32[..]].concat()] {
        let error = read(text).expect_err("UTF-32");
        assert!(error.to_string().contains("line 1: this looks like UTF-32"), "{error}");
        assert!(error.hint().expect("advice").contains("iconv -f UTF-32 "));
    }
    assert_eq!(refused("a red\0 cat, in the snow").0, "byte 6 of the line is NUL, which no prompt holds");
    assert_eq!(refused(r#"{"prompt": "a\u0000b"}"#).0, "the prompt holds a NUL");
}

#[test]
fn a_prompt_from_a_stream_is_read_as_one_of_a_file() {
    assert_eq!(read_prompt(&b"\xef\xbb\xbfa lake\nat dawn\r\n"[..]).expect("text"), "a lake\nat dawn");
    for bytes in [&b"a\0b"[..], b"a\0 \0b\0", b"caf\xe9"] {
        let error = read_prompt(bytes).expect_err("no text");
        assert!(error.to_string().starts_with("the prompt from stdin: ") && error.exit_code() == 2, "{error}");
    }
}

#[test]
fn an_endless_line_ends_the_reading() {
    let endless = std::io::BufReader::new(std::io::repeat(b'a'));
    let error = read_prompts("-", endless).expect_err("too long");
    assert_eq!(error.to_string(), "stdin line 1: longer than 1048576 bytes");
    assert_eq!(only(&"a".repeat(MAX_LINE_BYTES)).prompt.len(), MAX_LINE_BYTES);
}

#[test]
fn a_file_without_a_prompt_is_refused() {
    for text in ["", "\n\n", "# nothing\n", "\u{feff}"] {
        assert_eq!(read(text).expect_err("empty").to_string(), "prompts.jsonl holds no prompt");
    }
}

#[test]
fn a_reader_that_fails_is_a_disk_error() {
    struct Broken;
    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
            Err(std::io::Error::other("gone"))
        }
    }
    let error = read_prompts("x.txt", std::io::BufReader::new(Broken)).expect_err("gone");
    assert_eq!(error.to_string(), "cannot read x.txt: gone");
}

/// Text near to what is read: keys with values of every kind, and damage.
fn near_json() -> impl Strategy<Value = String> {
    let keys: Vec<String> =
        keys::all().into_iter().flat_map(|k| [k.to_string(), k.replace('_', "-"), format!("{k}x")]).collect();
    let value = prop_oneof![
        any::<f64>().prop_map(|x| x.to_string()),
        any::<u64>().prop_map(|x| x.to_string()),
        any::<i64>().prop_map(|x| x.to_string()),
        "\"[ -~]{0,8}\"",
        prop::sample::select(vec!["true", "null", "[]", "{}", "\"yarn\"", "\"stock\"", "\"\\ud800\"", "1e400", "-0"])
            .prop_map(str::to_owned),
    ];
    let pair = (prop::sample::select(keys), value).prop_map(|(key, value)| format!("\"{key}\": {value}"));
    prop::collection::vec(pair, 0..6).prop_map(|pairs| format!("{{\"prompt\": \"p\", {}}}", pairs.join(", ")))
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = read(bytes);
    }

    #[test]
    fn nothing_near_json_panics_and_every_refusal_names_the_line(line in near_json(), cut in 0usize..200) {
        for text in [line.clone(), line.chars().take(cut).collect()] {
            if let Err(error) = read(&text) {
                prop_assert!(error.to_string().starts_with("prompts.jsonl "), "{}", error);
                prop_assert_eq!(error.exit_code(), 2);
                prop_assert!(error.hint().is_some());
            }
        }
    }

    #[test]
    fn plain_text_comes_back(
        prompts in prop::collection::vec("[^#{\\[\\-\\s\u{feff}\\pC]([^\\n\\r\\-\u{0}]{0,60}[^\\s\\n\\r\\-\u{0}])?", 1..12),
        ending in prop::sample::select(vec!["\n", "\r\n", "\n\n", "\n# comment\r\n"]),
    ) {
        let lines = read(prompts.join(ending)).expect("prompts");
        let found: Vec<String> = lines.into_iter().map(|line| line.prompt).collect();
        prop_assert_eq!(found, prompts);
    }

    #[test]
    fn json_text_comes_back(prompt in "\\PC{1,60}", seed: u64, width in 16usize..=65_536, guidance in -1e6f64..1e6) {
        prop_assume!(!prompt.trim().is_empty());
        let json = serde_json::json!({ "prompt": prompt, "seed": seed, "width": width, "guidance": guidance });
        let line = only(&json.to_string());
        prop_assert_eq!(line.prompt, prompt.trim());
        let o = line.overrides;
        prop_assert_eq!((o.seed, o.width), (Some(seed), Some(width)));
        // serde_json reads floats to within one unit in the last place unless its `float_roundtrip` feature is on.
        prop_assert!((o.guidance.expect("given") - guidance).abs() <= 1e-15 * guidance.abs());
    }
}
