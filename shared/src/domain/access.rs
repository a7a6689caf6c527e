//! Who may do what over the HTTP API: roles of access tokens, and the rights they give.
//!
//! | Role | `submit` | `look` | `read` | `operate` |
//! |---|---|---|---|---|
//! | `submit` | yes | yes | | |
//! | `read` | | yes | yes | |
//! | `operate` | | yes | yes | yes |
//! | `admin` | yes | yes | yes | yes |
//!
//! Whoever puts jobs in follows them by their ids, which are random and told to nobody else, and sees no others: hence `look`.
//! Operators do not put jobs in.

use super::words::vocabulary;

vocabulary! {
    /// What an access token is for.
    Role {
        /// Put jobs in and follow them.
        Submit = "submit",
        /// See everything, change nothing.
        Read = "read",
        /// See everything; act on jobs, dead letters, unknown outcomes, accounts and the global stop.
        Operate = "operate",
        /// Everything.
        Admin = "admin",
    }
}

vocabulary! {
    /// What a route asks for.
    Right {
        /// Put jobs in.
        Submit = "submit",
        /// Look at a job by its id.
        Look = "look",
        /// See everything.
        Read = "read",
        /// Change what becomes of jobs and of paid sends.
        Operate = "operate",
    }
}

impl Role {
    /// Whether the role gives this right.
    #[must_use]
    pub const fn gives(self, right: Right) -> bool {
        match self {
            Self::Submit => matches!(right, Right::Submit | Right::Look),
            Self::Read => matches!(right, Right::Look | Right::Read),
            Self::Operate => matches!(right, Right::Look | Right::Read | Right::Operate),
            Self::Admin => true,
        }
    }
}

/// Whether a token may have this name: letters, digits and `._@-`, beginning with a letter or digit, at most 64 bytes. The same
/// as the CHECK of `access_tokens.name`.
#[must_use]
pub fn is_name(text: &str) -> bool {
    let mut bytes = text.bytes();
    bytes
        .next()
        .is_some_and(|byte| byte.is_ascii_alphanumeric())
        && text.len() <= 64
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || b"._@-".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_roles_are_the_table_of_this_module() {
        let cell = |role: Role, right| if role.gives(right) { " yes |" } else { " |" };
        for role in Role::ALL {
            let cells: String = Right::ALL.iter().map(|right| cell(*role, *right)).collect();
            let row = format!("//! | `{role}` |{cells}");
            assert!(include_str!("access.rs").contains(&row), "{row}");
        }
    }

    #[test]
    fn names_are_plain() {
        for name in ["a", "ci-2", "Ann.B@example.org", "0_"] {
            assert!(is_name(name), "{name}");
        }
        let long = "x".repeat(65);
        for name in ["", "-a", ".a", "a b", "ä", "a\n", "a/b", &long] {
            assert!(!is_name(name), "{name}");
        }
        assert!(is_name(&long[1..]));
    }
}
