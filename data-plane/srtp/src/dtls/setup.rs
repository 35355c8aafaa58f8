//! Who begins (RFC 4145 4, RFC 5763 5).

/// `a=setup`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Setup {
    Active,
    Passive,
    ActPass,
    /// Nothing is to be set up now. No association comes of it.
    HoldConn,
}

/// Our part in the handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Sends the ClientHello.
    Client,
    /// Waits for it.
    Server,
}

impl Setup {
    /// Reads the value of `a=setup`, whatever the case of its letters.
    #[must_use]
    pub fn parse(value: &[u8]) -> Option<Self> {
        [Self::Active, Self::Passive, Self::ActPass, Self::HoldConn]
            .into_iter()
            .find(|setup| setup.as_str().as_bytes().eq_ignore_ascii_case(value.trim_ascii()))
    }

    /// As SDP has it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Passive => "passive",
            Self::ActPass => "actpass",
            Self::HoldConn => "holdconn",
        }
    }

    /// What we answer to an offer with this. To `actpass` it is `passive`: whoever may be behind a
    /// NAT begins, and no work is done for a peer that has not spoken. (RFC 5763 5 recommends
    /// `active` to save time; the cookie exchange wants the peer to speak first.)
    #[must_use]
    pub const fn answer(self) -> Self {
        match self {
            Self::Active | Self::ActPass => Self::Passive,
            Self::Passive => Self::Active,
            Self::HoldConn => Self::HoldConn,
        }
    }

    /// Our role, when `self` is what we said and `theirs` what the peer said. `None`: the two do
    /// not fit (both active, both passive, an answer of `actpass`), or nothing is to be set up.
    #[must_use]
    pub const fn role(self, theirs: Self) -> Option<Role> {
        match (self, theirs) {
            (Self::Active | Self::ActPass, Self::Passive) | (Self::Active, Self::ActPass) => {
                Some(Role::Client)
            }
            (Self::Passive | Self::ActPass, Self::Active) | (Self::Passive, Self::ActPass) => {
                Some(Role::Server)
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 4145 4.1: what may answer what, and who then begins.
    #[test]
    fn roles_of_all_pairs() {
        use Setup::{ActPass, Active, HoldConn, Passive};
        for (ours, theirs, role) in [
            (Active, Passive, Some(Role::Client)),
            (Passive, Active, Some(Role::Server)),
            (ActPass, Active, Some(Role::Server)),
            (ActPass, Passive, Some(Role::Client)),
            (Active, ActPass, Some(Role::Client)),
            (Passive, ActPass, Some(Role::Server)),
            (Active, Active, None),
            (Passive, Passive, None),
            (ActPass, ActPass, None),
            (HoldConn, Active, None),
            (Passive, HoldConn, None),
        ] {
            assert_eq!(ours.role(theirs), role, "{ours:?} {theirs:?}");
        }
        for offered in [Active, Passive, ActPass] {
            assert!(offered.answer().role(offered).is_some());
            assert_eq!(Setup::parse(offered.as_str().as_bytes()), Some(offered));
        }
        assert_eq!(Setup::parse(b" ActPass"), Some(ActPass));
        assert_eq!(Setup::parse(b"both"), None);
    }
}
