//! What becomes of the peer's checks, and what they may cost.

use crate::webrtc::budget::Budget;
use crate::webrtc::stun::Malformed;

/// Why a request was answered with an error (RFC 8445 §7.3, RFC 8489 §9.1.3).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Refusal {
    /// 400: another method, or something that a check must have is missing.
    BadRequest,
    /// 401: for another transport, or made with another password.
    Unauthenticated,
    /// 420: it has attributes that must be understood and are not.
    UnknownAttribute,
    /// 487: the peer believes to be controlled as well. We are lite, so it is the one to change.
    RoleConflict,
}

impl Refusal {
    /// All of them, in the order of their discriminants.
    pub const ALL: [Self; 4] = [
        Self::BadRequest,
        Self::Unauthenticated,
        Self::UnknownAttribute,
        Self::RoleConflict,
    ];

    /// The value of ERROR-CODE (RFC 8489 §14.8).
    pub const fn code(self) -> u16 {
        match self {
            Self::BadRequest => 400,
            Self::Unauthenticated => 401,
            Self::UnknownAttribute => 420,
            Self::RoleConflict => 487,
        }
    }

    pub(super) const fn reason(self) -> &'static str {
        match self {
            Self::BadRequest => "Bad Request",
            Self::Unauthenticated => "Unauthenticated",
            Self::UnknownAttribute => "Unknown Attribute",
            Self::RoleConflict => "Role Conflict",
        }
    }
}

/// What became of a STUN datagram.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Checked {
    /// A check by somebody who knows the password. The answer must be sent.
    Accepted,
    /// A request that is refused. If there is an answer, it may be sent.
    Refused(Refusal),
    /// Not a message; there is no answer.
    Malformed(Malformed),
    /// An answer to a check of ours.
    Answered,
    /// A check that came by another tuple before; there is no answer.
    Replayed,
    /// A check beyond what may be spent on them. It was not looked at.
    Flood,
    /// An indication, an answer to a question that was not asked, or anything after the end; there is no answer.
    Ignored,
}

/// What one transport's checks may cost. One that is within its budget costs some 6 µs.
#[derive(Debug)]
pub(super) struct CheckBudgets {
    /// From tuples that are valid. A browser sends 20 to 50 a second while it looks for a pair, and then a few.
    pub(super) of_valid: Budget,
    /// From other ones, so that who has only seen the user name does not keep the peer's own checks out.
    pub(super) of_new: Budget,
    /// Answers to those that are refused. A client that mistakes its role or its password asks a few times a second.
    pub(super) refusals: Budget,
}

impl CheckBudgets {
    pub(super) const fn new() -> Self {
        Self {
            of_valid: Budget::new(200, 400),
            of_new: Budget::new(50, 100),
            refusals: Budget::new(10, 20),
        }
    }
}
