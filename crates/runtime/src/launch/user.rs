//! Who a process runs as: names and groups looked up in the container's own `/etc/passwd` and `/etc/group`.
//!
//! Runs inside the container's root, so a hostile link leads nowhere. Files are read up to a limit.

use std::{fs::File, io::Read};

use super::{Failure, plan::UserPlan, status::RunsAs};

/// No more than this is read of either file, in bytes.
const FILE_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// A user found or given.
pub struct Found {
    /// Numbers to set.
    pub runs_as: RunsAs,
    /// Home directory, `/` when unknown.
    pub home: String,
}

/// Resolves `plan` against the files under the present root.
pub fn resolve(plan: &UserPlan) -> Result<Found, Failure> {
    find(plan, &read("/etc/passwd"), &read("/etc/group"))
}

fn read(path: &str) -> String {
    let mut bytes = Vec::new();
    // An image without the file is common; numbers need none.
    if let Ok(file) = File::open(path) {
        let _ = file.take(FILE_BYTES_MAX).read_to_end(&mut bytes);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

struct Passwd<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

fn passwd(text: &str) -> impl Iterator<Item = Passwd<'_>> {
    text.lines().filter_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        let [name, _, uid, gid, _, home, ..] = fields[..] else { return None };
        Some(Passwd { name, uid: uid.parse().ok()?, gid: gid.parse().ok()?, home })
    })
}

/// Name, number and members of each group.
fn groups(text: &str) -> impl Iterator<Item = (&str, u32, &str)> {
    text.lines().filter_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        let [name, _, gid, members, ..] = fields[..] else { return None };
        Some((name, gid.parse().ok()?, members))
    })
}

fn find(plan: &UserPlan, passwd_text: &str, group_text: &str) -> Result<Found, Failure> {
    let (user, group) = plan.user.split_once(':').unwrap_or((&plan.user, ""));
    let user = if user.is_empty() { "0" } else { user };
    let number: Option<u32> = user.parse().ok();
    // A name wins over a number that looks like one, as in upstream's runtimes.
    let entry = passwd(passwd_text).find(|entry| entry.name == user || Some(entry.uid) == number);
    let (uid, mut gid, home, name) = match (&entry, number) {
        (Some(entry), _) => (entry.uid, entry.gid, entry.home, entry.name),
        (None, Some(uid)) => (uid, 0, "/", ""),
        (None, None) => return Err(Failure(format!("unable to find user {user}: no matching entries in passwd file"))),
    };
    if !group.is_empty() {
        gid = group
            .parse()
            .ok()
            .or_else(|| groups(group_text).find(|(name, ..)| *name == group).map(|(_, gid, _)| gid))
            .ok_or_else(|| Failure(format!("unable to find group {group}: no matching entries in group file")))?;
    }
    gid = plan.group.unwrap_or(gid);
    let mut all: Vec<u32> = plan.supplemental_groups.clone();
    if !plan.strict_groups && !name.is_empty() {
        let member = |members: &str| members.split(',').any(|member| member == name);
        all.extend(groups(group_text).filter(|(.., members)| member(members)).map(|(_, gid, _)| gid));
    }
    all.push(gid);
    all.sort_unstable();
    all.dedup();
    let home = if home.is_empty() { "/" } else { home };
    Ok(Found { runs_as: RunsAs { uid, gid, groups: all }, home: home.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nweb:x:33:34:web:/var/www:/bin/sh\nbroken\n";
    const GROUP: &str = "root:x:0:\nwww:x:34:\nextra:x:50:web,other\n";

    fn plan(user: &str) -> UserPlan {
        UserPlan { user: user.into(), ..Default::default() }
    }

    #[test]
    fn finds_users_by_name_and_number() {
        let cases = [
            ("", 0, 0, vec![0], "/root"),
            ("web", 33, 34, vec![34, 50], "/var/www"),
            ("33", 33, 34, vec![34, 50], "/var/www"),
            ("33:0", 33, 0, vec![0, 50], "/var/www"),
            ("web:extra", 33, 50, vec![50], "/var/www"),
            ("1234", 1234, 0, vec![0], "/"),
            ("1234:77", 1234, 77, vec![77], "/"),
        ];
        for (user, uid, gid, groups, home) in cases {
            let found = find(&plan(user), PASSWD, GROUP).unwrap();
            assert_eq!((found.runs_as, found.home.as_str()), (RunsAs { uid, gid, groups }, home), "{user}");
        }
    }

    #[test]
    fn refuses_unknown_names() {
        let missing = |user| find(&plan(user), PASSWD, GROUP).err().unwrap().0;
        assert_eq!(missing("nobody"), "unable to find user nobody: no matching entries in passwd file");
        assert_eq!(missing("web:staff"), "unable to find group staff: no matching entries in group file");
    }

    #[test]
    fn strict_leaves_out_the_groups_of_the_image() {
        let strict = UserPlan { strict_groups: true, supplemental_groups: vec![7], group: Some(9), ..plan("web") };
        let found = find(&strict, PASSWD, GROUP).unwrap();
        assert_eq!(found.runs_as, RunsAs { uid: 33, gid: 9, groups: vec![7, 9] });
    }
}
