//! JSON that an operator gives: on the command line, in a file or on standard input.

use std::fs::File;
use std::io::{self, Read};

use serde_json::Value;
use weir::http::BODY_BYTES_MAX;

use super::client::Failure;

/// Reads an argument that is JSON.
pub(super) fn parse_json(text: &str) -> Result<Value, String> {
    serde_json::from_str(text).map_err(|error| format!("not JSON: {error}"))
}

/// Reads what an argument names: itself when it begins like an array or an object, `-` standard input, else a file.
pub(super) fn read_json(source: &str) -> Result<Value, Failure> {
    if source.trim_start().starts_with(['[', '{']) {
        return parse_json(source).map_err(Failure::Usage);
    }
    // More than this the server would not take anyway.
    let limit = BODY_BYTES_MAX as u64 + 1;
    let mut text = Vec::new();
    let read = match source {
        "-" => io::stdin().take(limit).read_to_end(&mut text),
        path => File::open(path).and_then(|file| file.take(limit).read_to_end(&mut text)),
    };
    read.map_err(|error| Failure::Usage(format!("cannot read {source}: {error}")))?;
    serde_json::from_slice(&text).map_err(|error| Failure::Usage(format!("{source}: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn json_is_found_where_the_argument_says() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("some.json");
        std::fs::write(&path, "[1]").unwrap();
        assert_eq!(read_json(path.to_str().unwrap()).unwrap(), json!([1]));
        assert_eq!(read_json(" [2]").unwrap(), json!([2]));
        assert_eq!(read_json(r#"{"a":3}"#).unwrap(), json!({"a": 3}));
        for (source, complaint) in [
            ("[1", "not JSON"),
            ("/nowhere/some.json", "cannot read /nowhere/some.json"),
        ] {
            let error = read_json(source).unwrap_err().to_string();
            assert!(error.contains(complaint), "{error}");
        }
        std::fs::write(&path, "[1").unwrap();
        assert!(read_json(path.to_str().unwrap()).is_err());
        // A device that never ends.
        let error = read_json("/dev/zero").unwrap_err().to_string();
        assert!(error.starts_with("/dev/zero: "), "{error}");
    }
}
