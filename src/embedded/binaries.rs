//! Finds PostgreSQL's server binaries among the installed versions.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use super::error::Error;

/// The oldest major version that Trunkline runs on.
const MIN_MAJOR: u32 = 14;

/// Where distributions keep a folder for each version: the parent, the prefix of the version's folder,
/// and the folder of binaries in it.
const VERSIONED: [(&str, &str, &str); 6] = [
    ("/usr/lib/postgresql", "", "bin"),
    ("/usr", "pgsql-", "bin"),
    ("/usr/libexec", "postgresql", ""),
    ("/opt/homebrew/opt", "postgresql@", "bin"),
    ("/usr/local/opt", "postgresql@", "bin"),
    ("/usr/local", "pgsql", "bin"),
];

/// A folder with the `initdb`, `pg_ctl` and `postgres` of one version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binaries {
    dir: PathBuf,
    major: u32,
}

impl Binaries {
    /// Finds the binaries for a cluster: of its own version if it exists, otherwise the newest. If a
    /// folder is `chosen`, only that one is considered.
    pub fn find(chosen: Option<&Path>, pgdata: &Path) -> Result<Self, Error> {
        let found = match chosen {
            Some(dir) => {
                let only = Self::in_dir(dir);
                vec![only.ok_or_else(|| Error::NotInChosenDir { dir: dir.to_owned() })?]
            }
            None => installed(),
        };
        choose(found, pgdata)
    }

    /// The program that creates a cluster.
    pub fn initdb(&self) -> PathBuf {
        self.dir.join("initdb")
    }

    /// The program that starts and stops a server.
    pub fn pg_ctl(&self) -> PathBuf {
        self.dir.join("pg_ctl")
    }

    /// The server.
    pub fn postgres(&self) -> PathBuf {
        self.dir.join("postgres")
    }

    fn in_dir(dir: &Path) -> Option<Self> {
        let complete = ["initdb", "pg_ctl", "postgres"].iter().all(|name| dir.join(name).is_file());
        if !complete {
            return None;
        }
        let output = Command::new(dir.join("postgres")).arg("--version").output().ok()?;
        let major = major_version(&String::from_utf8_lossy(&output.stdout))?;
        (major >= MIN_MAJOR).then(|| Self { dir: dir.to_owned(), major })
    }
}

fn installed() -> Vec<Binaries> {
    let path = env::var_os("PATH").unwrap_or_default();
    let on_path = env::split_paths(&path).filter(|dir| dir.join("postgres").is_file());
    // A folder on the path may hold links: the programs are together where the links lead.
    let on_path = on_path.map(|dir| match dir.join("postgres").canonicalize() {
        Ok(real) => real.parent().map(Path::to_owned).unwrap_or(dir),
        Err(_) => dir,
    });
    let mut dirs: Vec<PathBuf> = on_path.chain(named_by_pg_config()).chain(versioned()).collect();
    let mut seen = std::collections::HashSet::new();
    dirs.retain(|dir| seen.insert(dir.clone()));
    dirs.iter().filter_map(|dir| Binaries::in_dir(dir)).collect()
}

fn named_by_pg_config() -> Option<PathBuf> {
    let output = Command::new("pg_config").arg("--bindir").output().ok()?;
    let dir = String::from_utf8(output.stdout).ok()?;
    Some(PathBuf::from(dir.trim()))
}

fn versioned() -> impl Iterator<Item = PathBuf> {
    VERSIONED.into_iter().flat_map(|(parent, prefix, inner)| {
        let entries = fs::read_dir(parent).into_iter().flatten().flatten();
        entries
            .filter(move |entry| entry.file_name().to_string_lossy().starts_with(prefix))
            .map(move |entry| entry.path().join(inner))
    })
}

fn choose(mut found: Vec<Binaries>, pgdata: &Path) -> Result<Binaries, Error> {
    found.sort_by_key(|binaries| std::cmp::Reverse(binaries.major));
    let Ok(version) = fs::read_to_string(pgdata.join("PG_VERSION")) else {
        return found.into_iter().next().ok_or(Error::NoBinaries);
    };
    let version = version.trim();
    let available: Vec<String> = found.iter().map(|found| found.major.to_string()).collect();
    found.into_iter().find(|binaries| binaries.major.to_string() == version).ok_or_else(|| {
        Error::OtherMajor {
            data_dir: pgdata.to_owned(),
            found: version.to_owned(),
            available: match available.is_empty() {
                true => "no version".to_owned(),
                false => available.join(", "),
            },
        }
    })
}

/// The major version in `postgres (PostgreSQL) 15.18 (Debian …)`.
fn major_version(text: &str) -> Option<u32> {
    let version = text.split_whitespace().nth(2)?;
    let digits = version.split(|c: char| !c.is_ascii_digit()).next()?;
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn binaries(major: u32) -> Binaries {
        Binaries { dir: PathBuf::from(format!("/{major}")), major }
    }

    #[test]
    fn the_major_version_is_read_from_releases_and_betas() {
        assert_eq!(major_version("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)"), Some(15));
        assert_eq!(major_version("postgres (PostgreSQL) 18beta1"), Some(18));
        assert_eq!(major_version("nonsense"), None);
    }

    #[test]
    fn a_new_cluster_gets_the_newest_and_an_old_one_its_own_version() {
        let dir = tempfile::tempdir().unwrap();
        let newest = choose(vec![binaries(14), binaries(17), binaries(15)], dir.path());
        assert_eq!(newest.unwrap().major, 17);
        assert!(matches!(choose(vec![], dir.path()), Err(Error::NoBinaries)));

        fs::write(dir.path().join("PG_VERSION"), "15\n").unwrap();
        assert_eq!(choose(vec![binaries(17), binaries(15)], dir.path()).unwrap().major, 15);
        let error = choose(vec![binaries(17), binaries(14)], dir.path()).unwrap_err().to_string();
        assert!(error.contains("PostgreSQL 15") && error.contains("17, 14"), "{error}");
    }
}
