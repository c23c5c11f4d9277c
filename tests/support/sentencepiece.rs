//! Sentencepiece models, written as protobuf messages (google/sentencepiece, `sentencepiece_model.proto`).

use serde_json::Value;

fn number(mut number: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while number >= 0x80 {
        bytes.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
    bytes
}

/// A field that holds a number.
pub fn number_field(field: u64, value: u64) -> Vec<u8> {
    [number(field << 3), number(value)].concat()
}

/// A field that holds bytes, a text or another message.
pub fn bytes_field(field: u64, bytes: &[u8]) -> Vec<u8> {
    [number(field << 3 | 2), number(bytes.len() as u64), bytes.to_vec()].concat()
}

/// A piece with its score and type (2 unknown, 3 control, 4 user defined).
pub fn piece(text: &str, score: f32, kind: u64) -> Vec<u8> {
    let score = [number(2 << 3 | 5), score.to_le_bytes().to_vec()].concat();
    bytes_field(1, &[bytes_field(1, text.as_bytes()), score, number_field(3, kind)].concat())
}

/// The model that a tokenizer.json of T5 was made of.
pub fn of_tokenizer_json(json: &[u8]) -> Vec<u8> {
    let json: Value = serde_json::from_slice(json).expect("JSON");
    let mut model = Vec::new();
    for (id, entry) in json["model"]["vocab"].as_array().expect("pieces").iter().enumerate() {
        let text = entry[0].as_str().expect("a piece");
        let is_control = json["added_tokens"].as_array().expect("tokens").iter().any(|token| token["content"] == text);
        let kind = if json["model"]["unk_id"] == id {
            2
        } else if is_control {
            3
        } else {
            1
        };
        model.extend(piece(text, entry[1].as_f64().expect("a score") as f32, kind));
    }
    let table = json["normalizer"]["normalizers"][0]["precompiled_charsmap"].as_str().expect("a table");
    let normalizer = [bytes_field(1, b"nmt_nfkc"), bytes_field(2, &base64(table)), number_field(3, 1)].concat();
    [model, bytes_field(2, &number_field(3, 1)), bytes_field(3, &normalizer)].concat()
}

fn base64(text: &str) -> Vec<u8> {
    const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let (mut bytes, mut bits, mut count) = (Vec::new(), 0_u32, 0);
    for letter in text.bytes().filter(|letter| *letter != b'=') {
        let value = ALPHABET.iter().position(|known| *known == letter).expect("base64");
        bits = bits << 6 | value as u32;
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count) as u8);
            bits &= (1 << count) - 1;
        }
    }
    bytes
}
