//! What an access token says that its bearer may do: the claims of a JSON Web Token (RFC 7519 §4).

use serde::{Deserialize, Deserializer, Serialize};

/// Clocks may differ by so many seconds (RFC 7519 §4.1.4: a few minutes at most).
pub(super) const LEEWAY_S: u64 = 30;

/// A token expires after a year at the latest. Who wants one that does not expire has a static token; and milliseconds given for
/// seconds are noticed.
pub(super) const LIFETIME_MAX_S: u64 = 366 * 24 * 3_600;

/// The room that stands for all of them.
const ALL_ROOMS: &str = "*";

/// The claims of an access token. What it does not say it does not permit; claims that Weir does not know are ignored (RFC 7519 §4).
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Claims {
    /// The rooms that it is for.
    #[serde(skip_serializing_if = "RoomClaim::is_empty")]
    pub room: RoomClaim,
    /// The only name under which its bearer may be in a room; `None`: any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer: Option<String>,
    /// Whether its bearer may send media to the room.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub publish: bool,
    /// Whether its bearer may receive what others send.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub subscribe: bool,
    /// Whether its bearer may command the server: everything that operators can do.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub admin: bool,
    /// From when on it does not hold any more, in seconds since 1970. Required.
    #[serde(deserialize_with = "seconds", skip_serializing_if = "Option::is_none")]
    pub exp: Option<u64>,
    /// From when on it holds, in seconds since 1970.
    #[serde(deserialize_with = "seconds", skip_serializing_if = "Option::is_none")]
    pub nbf: Option<u64>,
}

/// Rooms, each as it stands in a URL: an id, or a name; `*` is all of them.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub enum RoomClaim {
    /// One.
    One(String),
    /// All of these.
    Several(Vec<String>),
}

impl Default for RoomClaim {
    fn default() -> Self {
        Self::Several(Vec::new())
    }
}

impl From<Vec<String>> for RoomClaim {
    fn from(mut rooms: Vec<String>) -> Self {
        match (rooms.len(), rooms.pop()) {
            (1, Some(room)) => Self::One(room),
            (_, last) => {
                rooms.extend(last);
                Self::Several(rooms)
            }
        }
    }
}

impl RoomClaim {
    fn names(&self) -> &[String] {
        match self {
            Self::One(room) => std::slice::from_ref(room),
            Self::Several(rooms) => rooms,
        }
    }

    /// Whether there is no room among them.
    pub fn is_empty(&self) -> bool {
        self.names().is_empty()
    }

    /// Whether all rooms are among them.
    pub fn is_all(&self) -> bool {
        self.names().iter().any(|room| room == ALL_ROOMS)
    }

    /// Whether a room is among them that is called so in a URL.
    pub fn has(&self, room: &str) -> bool {
        // An id is the same with zeros before it.
        let id = room
            .bytes()
            .all(|byte| byte.is_ascii_digit())
            .then(|| room.parse::<u64>().ok());
        match id.flatten().map(|id| id.to_string()) {
            Some(id) => self.is_all() || self.names().contains(&id),
            None => self.is_all() || self.names().iter().any(|own| own == room),
        }
    }
}

/// Seconds since 1970, which may have a fraction (RFC 7519 §2, NumericDate).
fn seconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    let date = serde_json::Number::deserialize(deserializer)?;
    // What is before 1970 is no different from that.
    let of_float = |date: f64| date.max(0.0) as u64;
    let seconds = date.as_u64().or_else(|| date.as_f64().map(of_float));
    seconds.map(Some).ok_or_else(|| serde::de::Error::custom("not a date"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn claims(json: serde_json::Value) -> Result<Claims, serde_json::Error> {
        serde_json::from_value(json)
    }

    #[test]
    fn rooms_are_named_exactly() {
        let check = |claim: serde_json::Value, room: &str, has: bool| {
            let claims = claims(json!({ "room": claim })).unwrap();
            assert_eq!(claims.room.has(room), has, "{claim} {room}");
        };
        check(json!("stage"), "stage", true);
        check(json!("stage"), "Stage", false);
        check(json!("stage"), "stage2", false);
        check(json!("stage"), "stag", false);
        check(json!("stage"), "", false);
        check(json!("stage"), "*", false);
        check(json!(["a", "7"]), "7", true);
        check(json!(["a", "7"]), "007", true);
        check(json!("007"), "7", false);
        check(json!("*"), "anything", true);
        check(json!(["a", "*"]), "7", true);
        check(json!("st*"), "stage", false);
        check(json!([]), "stage", false);
        check(json!(""), "stage", false);
        assert!(!Claims::default().room.has("stage"));
        assert!(claims(json!({ "room": 7 })).is_err(), "names are text");
        assert_eq!(RoomClaim::from(vec!["a".to_owned()]), RoomClaim::One("a".to_owned()));
        assert_eq!(
            RoomClaim::from(vec!["a".to_owned(), "b".to_owned()]).names(),
            ["a", "b"]
        );
    }

    #[test]
    fn what_is_not_said_is_not_permitted() {
        let nothing = claims(json!({})).unwrap();
        assert_eq!(nothing, Claims::default());
        assert!(!nothing.publish && !nothing.subscribe && !nothing.admin);
        for wrong in [
            json!({ "publish": 1 }),
            json!({ "admin": "true" }),
            json!({ "peer": ["alice"] }),
            json!({ "exp": "1767225600" }),
            json!({ "exp": null }),
        ] {
            assert!(claims(wrong.clone()).is_err(), "{wrong}");
        }
        assert!(serde_json::from_str::<Claims>(r#"{"admin": false, "admin": true}"#).is_err());
    }

    #[test]
    fn dates_may_have_a_fraction_and_be_far_away() {
        for (date, expected) in [
            (json!(7), 7),
            (json!(7.9), 7),
            (json!(-1), 0),
            (json!(1e300), u64::MAX),
            (json!(u64::MAX), u64::MAX),
        ] {
            assert_eq!(claims(json!({ "exp": date })).unwrap().exp, Some(expected), "{date}");
        }
    }

    #[test]
    fn they_are_written_as_they_are_read() {
        let full = json!({"room": ["a", "b"], "peer": "alice", "publish": true, "subscribe": true, "exp": 9, "nbf": 1});
        assert_eq!(serde_json::to_value(claims(full.clone()).unwrap()).unwrap(), full);
        assert_eq!(serde_json::to_value(Claims::default()).unwrap(), json!({}));
    }
}
