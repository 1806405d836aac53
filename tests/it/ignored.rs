//! A test that cannot run on this machine is ignored with a reason, and never returns early.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::support::files_below;

#[test]
fn no_test_passes_without_having_run() {
    // In two pieces, as this file is searched, too.
    let signs = [["else { retu", "rn };"].concat(), ["println!(\"ski", "pped"].concat()];
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let files = ["tests", "src"].map(|folder| files_below(&root.join(folder)));
    let mut tests = 0;
    let is_rust = |path: &PathBuf| path.extension().is_some_and(|kind| kind == "rs");
    for path in files.into_iter().flatten().filter(is_rust) {
        let text = fs::read_to_string(&path).unwrap();
        // A test's body ends at a closing brace at the margin or one level deeper.
        for test in text.split("::test").skip(1).chain(text.split("#[test]").skip(1)) {
            let body = test.lines().skip(1).take_while(|line| *line != "}" && *line != "    }");
            for line in body {
                let left = signs.iter().any(|sign| line.contains(sign.as_str()));
                assert!(!left, "{}: {}", path.display(), line.trim());
            }
            tests += 1;
        }
    }
    assert!(tests > 300, "{tests}");
}

/// The reasons are those of this very build.
#[test]
fn what_this_machine_lacks_is_known() {
    let here = |program: &str| {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let folders = std::env::split_paths(&path).chain([PathBuf::from("/usr/sbin")]);
        folders.into_iter().any(|folder| folder.join(program).is_file())
    };
    assert_eq!(cfg!(has_pgbouncer), here("pgbouncer"));
    assert_eq!(cfg!(has_script), here("script"));
    assert_eq!(cfg!(has_promtool), here("promtool"));
    assert_eq!(cfg!(has_prometheus), here("prometheus"));
    assert_eq!(cfg!(is_root), nix::unistd::geteuid().is_root());
}
