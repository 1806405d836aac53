//! Examples of each subcommand, by its names from the root on.

pub(in super::super) const EXAMPLES: &[(&str, &[&str])] = &[
    (
        "serve",
        &[
            "trunkline serve",
            "trunkline serve --listen localhost:50052 --http off",
            "trunkline serve --database-url postgresql://me:secret@db.example/mine",
        ],
    ),
    ("migrate", &["trunkline migrate --database-url postgresql://owner:secret@db.example/mine"]),
    (
        "topic",
        &[
            "trunkline topic create orders",
            "trunkline topic list",
            "trunkline topic tail orders -F",
        ],
    ),
    (
        "topic create",
        &[
            "trunkline topic create orders",
            "trunkline topic create orders --retention-age 7d --retention-bytes 10GiB",
            "trunkline topic create orders --label team=sales --description Orders",
        ],
    ),
    ("topic list", &["trunkline topic list", "trunkline topic list -o json"]),
    ("topic describe", &["trunkline topic describe orders"]),
    (
        "topic update",
        &[
            "trunkline topic update orders --retention-age forever",
            "trunkline topic update orders --keep-unread",
        ],
    ),
    ("topic copy", &["trunkline topic copy orders orders-archive"]),
    (
        "topic trim",
        &["trunkline topic trim orders --before 1000", "trunkline topic trim orders --before @7d"],
    ),
    (
        "topic read",
        &[
            "trunkline topic read orders",
            "trunkline topic read orders --from @15m -n 10 --json",
            "trunkline topic read orders --format '%o\\t%k\\t%p\\n'",
        ],
    ),
    ("topic tail", &["trunkline topic tail orders", "trunkline topic tail orders -n 1 -F"]),
    ("topic delete", &["trunkline topic delete orders", "trunkline topic delete orders --yes"]),
    ("producer", &["trunkline producer register orders till", "trunkline producer list orders"]),
    (
        "producer register",
        &["trunkline producer register orders till", "trunkline producer register orders"],
    ),
    ("producer unregister", &["trunkline producer unregister orders till"]),
    ("producer assign", &["trunkline producer assign orders till shop"]),
    ("producer list", &["trunkline producer list", "trunkline producer list orders -o json"]),
    ("producer describe", &["trunkline producer describe orders till"]),
    (
        "consumer",
        &[
            "trunkline consumer register orders billing --from latest",
            "trunkline consumer list orders",
        ],
    ),
    (
        "consumer register",
        &[
            "trunkline consumer register orders billing",
            "trunkline consumer register orders billing --from @1h",
        ],
    ),
    (
        "consumer seek",
        &[
            "trunkline consumer seek orders billing --to earliest",
            "trunkline consumer seek orders billing --to @1h",
        ],
    ),
    ("consumer unregister", &["trunkline consumer unregister orders billing"]),
    ("consumer assign", &["trunkline consumer assign orders billing accounting"]),
    ("consumer list", &["trunkline consumer list", "trunkline consumer list orders -o json"]),
    ("consumer describe", &["trunkline consumer describe orders billing"]),
    ("consumer lag", &["trunkline consumer lag", "trunkline consumer lag orders --all"]),
    (
        "subscription",
        &[
            "trunkline subscription create orders billing --max-deliveries 5",
            "trunkline subscription list orders",
        ],
    ),
    (
        "subscription create",
        &[
            "trunkline subscription create orders billing",
            "trunkline subscription create orders billing --ack-deadline 2m --max-deliveries 5",
        ],
    ),
    (
        "subscription list",
        &["trunkline subscription list", "trunkline subscription list orders -o json"],
    ),
    ("subscription describe", &["trunkline subscription describe orders billing"]),
    (
        "subscription update",
        &["trunkline subscription update orders billing --min-backoff 5s --max-backoff 10m"],
    ),
    (
        "subscription seek",
        &[
            "trunkline subscription seek orders billing --to earliest",
            "trunkline subscription seek orders billing --to @1h",
        ],
    ),
    ("subscription delete", &["trunkline subscription delete orders billing --yes"]),
    ("subscription parked", &["trunkline subscription parked orders billing"]),
    (
        "subscription replay",
        &[
            "trunkline subscription replay orders billing 17 20-29",
            "trunkline subscription replay orders billing --all",
        ],
    ),
    (
        "subscription discard",
        &[
            "trunkline subscription discard orders billing 17 20-29",
            "trunkline subscription discard orders billing --all --yes",
        ],
    ),
    (
        "pub",
        &[
            "trunkline pub orders one two",
            "trunkline pub orders '{\"id\":7}' --key customer-7 --header source=web",
            "date | trunkline pub orders --register",
        ],
    ),
    (
        "produce",
        &[
            "trunkline produce orders --producer till --register orders.txt",
            "tail -f app.log | trunkline produce app --producer host-1 --register",
            "trunkline produce orders --producer till --resume orders.log",
            "echo 'call back' | trunkline produce jobs --producer till --register --delay 1h",
        ],
    ),
    (
        "consume",
        &[
            "trunkline consume orders --consumer billing --register",
            "trunkline consume orders --consumer billing --until-caught-up -n 100 --json",
        ],
    ),
    (
        "work",
        &[
            "trunkline work orders --subscription billing",
            "trunkline work orders --subscription billing --exec ./send-bill --workers 4",
            "trunkline work orders --subscription billing --until-caught-up --json",
        ],
    ),
    ("tail", &["trunkline tail orders", "trunkline tail orders -n 1 -F"]),
    ("lag", &["trunkline lag", "trunkline lag orders --all --watch", "trunkline lag --watch 10s"]),
    ("top", &["trunkline top", "trunkline top orders --once", "trunkline top -o json"]),
    ("token", &["trunkline token create shop --valid-for 90d", "trunkline token list"]),
    (
        "token bootstrap",
        &[
            "trunkline token bootstrap --database-url postgresql://me:secret@db.example/mine > token",
        ],
    ),
    ("token create", &["trunkline token create shop --valid-for 90d > shop.token"]),
    ("token list", &["trunkline token list", "trunkline token list --principal shop"]),
    ("token rotate", &["trunkline token rotate tok-1 --overlap 1h > shop.token"]),
    ("token revoke", &["trunkline token revoke tok-1"]),
    ("grant", &["trunkline grant add shop publish orders", "trunkline grant list"]),
    (
        "grant add",
        &["trunkline grant add shop publish orders", "trunkline grant add shop read 'orders.*'"],
    ),
    ("grant remove", &["trunkline grant remove shop publish orders"]),
    ("grant list", &["trunkline grant list", "trunkline grant list --principal shop"]),
    ("quota", &["trunkline quota set shop bytes-per-second 1MiB", "trunkline quota list"]),
    (
        "quota set",
        &[
            "trunkline quota set shop bytes-per-second 1MiB",
            "trunkline quota set shop messages-per-second 500",
        ],
    ),
    ("quota unset", &["trunkline quota unset shop bytes-per-second"]),
    ("quota list", &["trunkline quota list", "trunkline quota list --principal shop"]),
    ("audit", &["trunkline audit list --since 1h"]),
    ("audit list", &["trunkline audit list --since 1h", "trunkline audit list --topic orders"]),
    ("whoami", &["trunkline whoami", "trunkline whoami --token-file shop.token"]),
    ("health", &["trunkline health", "trunkline health --endpoint broker.example:50051"]),
    ("bench", &["trunkline bench publish --duration 10s", "trunkline bench latency --rate 1000"]),
    ("bench publish", &["trunkline bench publish --producers 4 --duration 10s"]),
    ("bench consume", &["trunkline bench consume --messages 1000000"]),
    ("bench both", &["trunkline bench both --duration 10s"]),
    ("bench latency", &["trunkline bench latency --rate 1000 --duration 30s"]),
    ("bench fanout", &["trunkline bench fanout --consumers 100"]),
    (
        "bench work",
        &[
            "trunkline bench work --workers 4 --duration 10s",
            "trunkline bench work --stored --messages 1000000 --order in-order",
        ],
    ),
    ("bench idle", &["trunkline bench idle --streams 1000"]),
    (
        "context",
        &[
            "trunkline context add staging https://staging.example:50051 --token-file shop.token",
            "trunkline context use staging",
        ],
    ),
    (
        "context add",
        &[
            "trunkline context add here localhost:50051",
            "trunkline context add staging https://staging.example:50051 --token-file shop.token",
        ],
    ),
    ("context use", &["trunkline context use staging"]),
    ("context list", &["trunkline context list"]),
    ("context remove", &["trunkline context remove staging"]),
    (
        "completions",
        &[
            "trunkline completions bash > ~/.local/share/bash-completion/completions/trunkline",
            "trunkline completions zsh > ~/.trunkline.zsh",
            "trunkline completions fish > ~/.config/fish/completions/trunkline.fish",
        ],
    ),
    ("man", &["trunkline man > trunkline.1", "trunkline man --out ~/.local/share/man/man1"]),
];
