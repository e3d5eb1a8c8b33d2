//! Whom the program runs as: `[user][:[group]]` (docs/spec/kcptun-libev.md, section 14.2).

use nix::unistd::{Gid, Group, Uid, User};

/// What a text asks for, before names are looked up.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Wish<'a> {
    user: Option<&'a str>,
    group: Wanted<'a>,
}

/// Which group.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Wanted<'a> {
    /// The one that the process has.
    Same,
    /// The user's own.
    Login,
    /// This.
    Named(&'a str),
}

impl<'a> Wish<'a> {
    fn parse(text: &'a str) -> Result<Self, String> {
        let (user, group) = match text.split_once(':') {
            None => (text, Wanted::Same),
            Some((user, "")) => (user, Wanted::Login),
            Some((user, group)) => (user, Wanted::Named(group)),
        };
        let user = (!user.is_empty()).then_some(user);
        if text.contains('\0') {
            return Err(format!("{text:?} has a NUL in it"));
        }
        match (&user, &group) {
            (None, Wanted::Same | Wanted::Login) => Err(format!(
                "\"{text}\" names neither a user nor a group; write user, user:, user:group or :group"
            )),
            (_, Wanted::Named(group)) if group.contains(':') => Err(format!(
                "\"{text}\" has more than one colon; write user:group"
            )),
            _ => Ok(Self { user, group }),
        }
    }
}

/// Whom to become.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
struct Identity {
    user: Option<Uid>,
    group: Option<Gid>,
}

impl Identity {
    /// Looks the names of `text` up: names first, then numbers.
    fn resolve(text: &str) -> Result<Self, String> {
        let wish = Wish::parse(text)?;
        let user = wish.user.map(user).transpose()?;
        let group = match wish.group {
            Wanted::Same => None,
            Wanted::Named(name) => Some(group(name)?),
            Wanted::Login => match user {
                Some((_, Some(login))) => Some(login),
                _ => {
                    return Err(format!(
                        "\"{text}\": the system knows no login group of that user; write the group after the colon"
                    ));
                }
            },
        };
        Ok(Self {
            user: user.map(|(uid, _)| uid),
            group,
        })
    }
}

/// A user, and the login group if the system knows the user.
fn user(name: &str) -> Result<(Uid, Option<Gid>), String> {
    let failed = |e| format!("the user {name} cannot be looked up: {e}");
    if let Some(found) = User::from_name(name).map_err(failed)? {
        return Ok((found.uid, Some(found.gid)));
    }
    let uid = Uid::from_raw(number(name).ok_or_else(|| format!("there is no user {name}"))?);
    let login = User::from_uid(uid).map_err(failed)?.map(|found| found.gid);
    Ok((uid, login))
}

fn group(name: &str) -> Result<Gid, String> {
    let found =
        Group::from_name(name).map_err(|e| format!("the group {name} cannot be looked up: {e}"))?;
    match found {
        Some(group) => Ok(group.gid),
        None => number(name)
            .map(Gid::from_raw)
            .ok_or_else(|| format!("there is no group {name}")),
    }
}

/// A number, plain digits. The greatest means "no change" to the system, and is none.
fn number(text: &str) -> Option<u32> {
    let plain = text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|n| plain && *n != u32::MAX)
}

/// Checks that `text` can be meant: its form, and that its names exist.
///
/// # Errors
/// What is wrong with it, in words.
pub(crate) fn check(text: &str) -> Result<(), String> {
    Identity::resolve(text).map(|_| ())
}

/// Becomes `[user][:[group]]`, with all threads, and clears the supplementary groups. Section 14.2: `user` keeps the
/// group, `user:` takes the login group, `:group` keeps the user; each is a name or a number.
///
/// # Errors
/// When the text means nobody, the system refuses, or root could be had back afterwards. The process must then end:
/// it may be half of one and half of the other.
pub(crate) fn drop_privileges(text: &str) -> Result<(), String> {
    let Identity { user, group } = Identity::resolve(text)?;
    let refused = |what: &'static str| {
        move |e| {
            format!(
                "{what} cannot be changed to \"{text}\": {e}; start the program as root, or without user"
            )
        }
    };
    clear_groups().map_err(refused("the supplementary groups"))?;
    if let Some(gid) = group {
        nix::unistd::setgid(gid).map_err(refused("the group"))?;
    }
    if let Some(uid) = user {
        nix::unistd::setuid(uid).map_err(refused("the user"))?;
    }
    verify(user, group)
}

/// Takes the supplementary groups away.
#[cfg(not(target_vendor = "apple"))]
fn clear_groups() -> nix::Result<()> {
    nix::unistd::setgroups(&[])
}

/// The system keeps them itself.
#[cfg(target_vendor = "apple")]
fn clear_groups() -> nix::Result<()> {
    Ok(())
}

/// Sees that the change is there, and that it is for good.
fn verify(user: Option<Uid>, group: Option<Gid>) -> Result<(), String> {
    let is =
        |wanted: Option<Uid>| wanted.is_none_or(|u| u == Uid::current() && u == Uid::effective());
    let has =
        |wanted: Option<Gid>| wanted.is_none_or(|g| g == Gid::current() && g == Gid::effective());
    if !is(user) || !has(group) {
        return Err("the system changed the user or group only in part".into());
    }
    let root = Uid::from_raw(0);
    if user.is_some_and(|uid| uid != root) {
        let back = nix::unistd::setuid(root).is_ok()
            || (Gid::current().as_raw() != 0 && nix::unistd::setgid(Gid::from_raw(0)).is_ok());
        if back {
            return Err("root could be had back after the user was changed".into());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_forms() {
        let wish = |user, group| Ok(Wish { user, group });
        for (text, want) in [
            ("a", wish(Some("a"), Wanted::Same)),
            ("a:", wish(Some("a"), Wanted::Login)),
            ("a:b", wish(Some("a"), Wanted::Named("b"))),
            (":b", wish(None, Wanted::Named("b"))),
            ("1000:100", wish(Some("1000"), Wanted::Named("100"))),
        ] {
            assert_eq!(Wish::parse(text), want, "{text}");
        }
        for bad in ["", ":", "a:b:c", "a::", "a\0", ":b\0"] {
            assert!(Wish::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn numbers_are_plain() {
        assert_eq!(number("0"), Some(0));
        assert_eq!(number("65534"), Some(65534));
        for bad in ["", "+1", "-1", "1x", "4294967295", "4294967296", " 1"] {
            assert_eq!(number(bad), None, "{bad}");
        }
    }

    #[test]
    fn names_and_numbers_are_looked_up() {
        let id = |text| {
            Identity::resolve(text).map(|i| (i.user.map(Uid::as_raw), i.group.map(Gid::as_raw)))
        };
        assert_eq!(id("root"), Ok((Some(0), None)));
        assert_eq!(id("root:"), Ok((Some(0), Some(0))));
        assert_eq!(id("0:"), Ok((Some(0), Some(0))));
        assert_eq!(id("12345:54321"), Ok((Some(12345), Some(54321))));
        assert_eq!(id(":7"), Ok((None, Some(7))));
        for bad in [
            "no-such-user",
            ":no-such-group",
            "4294967294:",
            "root:no-such-group",
        ] {
            assert!(check(bad).is_err(), "{bad}");
        }
        assert!(check("root").is_ok());
    }
}
