"""Checks the alerts and the dashboard without Prometheus: scripts/check-ops runs it.

Each alert must have a test in which it fires, a test in which it does not, and a runbook. The
dashboard must be laid out without overlaps. Both must use documented metrics only.

Writes the queries of the dashboard to the file that it is given, as rules that promtool can check.
"""

import itertools
import json
import pathlib
import re
import sys

ALERTS = pathlib.Path("ops/prometheus/alerts.yml")
TESTS = pathlib.Path("ops/prometheus/alerts.test.yml")
DASHBOARD = pathlib.Path("ops/grafana/trunkline.json")
RUNBOOKS = pathlib.Path("docs/operations.md")
METRICS = pathlib.Path("docs/metrics.md")

COLUMNS = 24

# Metrics that Prometheus itself makes.
OF_PROMETHEUS = {"up"}

# Words of PromQL that are not metrics. Names of functions and aggregations precede a parenthesis.
KEYWORDS = {"and", "or", "unless", "bool", "offset", "group_left", "group_right", "inf", "nan"}
GROUPING = {"by", "without", "on", "ignoring", "group_left", "group_right"}

# What Grafana puts into a query, in a form that PromQL can parse.
VARIABLES = {"__rate_interval": "5m", "__interval": "1m", "__range": "1h"}


def alert_rules(text):
    """Yields the name, the expression and the URL of the runbook of each alert."""
    for rule in re.split(r"^ +- alert: ", text, flags=re.M)[1:]:
        name = rule.split("\n", 1)[0].strip()
        expression = re.search(r"^ +expr: (?:\|\n)?(.*?)^ +(?:for|labels):", rule, re.M | re.S)
        runbook = re.search(r"^ +runbook_url: (\S+)$", rule, re.M)
        severity = re.search(r"^ +severity: (?:page|warning)$", rule, re.M)
        for what, found in [("expr", expression), ("runbook_url", runbook), ("severity", severity)]:
            if not found:
                raise SystemExit(f"{ALERTS}: {name} has no {what} in the form that {__file__} reads")
        yield name, expression[1], runbook[1]


def tested_alerts(text):
    """The alerts with a test in which they fire, and those with one in which they do not."""
    cases = re.findall(r"^ +alertname: (\S+)\n +exp_alerts:(.*)$", text, re.M)
    fire = {name for name, expected in cases if not expected.strip()}
    quiet = {name for name, expected in cases if expected.strip() == "[]"}
    return fire, quiet


def anchors(text):
    """The anchors that GitHub gives to the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def used_metrics(expression):
    """The metrics that an expression of PromQL names."""
    expression = re.sub(r'"(?:[^"\\]|\\.)*"', "", expression)
    expression = re.sub(r"#.*", "", expression)
    expression = re.sub(r"\{[^}]*\}|\[[^\]]*\]", "", expression)
    expression = re.sub(rf"\b(?:{'|'.join(GROUPING)})\s*\([^)]*\)", " ", expression)
    names = re.findall(r"(?<![\w:.])([a-zA-Z_:][\w:]*)(?!\s*\(|[\w:])", expression)
    return {name for name in names if name.lower() not in KEYWORDS | GROUPING}


def documented_metrics(text):
    """The names in backticks in the first columns of the tables; labels may follow a name."""
    columns = re.findall(r"^\|([^|]*)\|", text, re.M)
    return {name for column in columns for name in re.findall(r"`([a-zA-Z_:][\w:]*)", column)}


def is_documented(metric, documented):
    family = re.sub(r"_(?:bucket|sum|count)$", "", metric)
    return metric in documented or family in documented or metric in OF_PROMETHEUS


def without_variables(query):
    def value(match):
        return VARIABLES.get(match[1] or match[2], "x")

    return re.sub(r"\$(?:(\w+)|\{(\w+)(?::\w+)?\})", value, query)


def panels(dashboard):
    """All panels, also those of rows that are collapsed."""
    for panel in dashboard["panels"]:
        yield panel
        yield from panel.get("panels", [])


def overlaps(first, second):
    a, b = first["gridPos"], second["gridPos"]
    return (
        a["x"] < b["x"] + b["w"]
        and b["x"] < a["x"] + a["w"]
        and a["y"] < b["y"] + b["h"]
        and b["y"] < a["y"] + a["h"]
    )


def dashboard_queries(dashboard):
    """Yields where each query is, and the query as PromQL."""
    for panel in panels(dashboard):
        for target in panel.get("targets", []):
            yield f"{panel['title']} ({target['refId']})", without_variables(target["expr"])
    for variable in dashboard["templating"]["list"]:
        if values := re.fullmatch(r"label_values\((.*), \w+\)", variable.get("definition", "")):
            yield f"variable {variable['name']}", without_variables(values[1])


def documented_queries(text):
    """Yields where each query is that the documentation of the metrics shows, and the query."""
    for number, query in enumerate(re.findall(r"^```promql\n(.*?)^```", text, re.M | re.S)):
        yield f"{METRICS} ({number + 1})", query


def dashboard_problems(text, dashboard):
    if text != json.dumps(dashboard, indent=2, ensure_ascii=False) + "\n":
        yield "is not formatted as json.dumps(…, indent=2, ensure_ascii=False) does"
    shown = list(panels(dashboard))
    ids = [panel["id"] for panel in shown]
    for repeated in sorted({id for id in ids if ids.count(id) > 1}):
        yield f"several panels have the id {repeated}"
    for panel in shown:
        position = panel["gridPos"]
        if position["x"] < 0 or position["x"] + position["w"] > COLUMNS:
            yield f"{panel['title']}: is wider than the {COLUMNS} columns"
        if panel["type"] != "row" and not panel.get("description"):
            yield f"{panel['title']}: has no description"
    for first, second in itertools.combinations(dashboard["panels"], 2):
        if overlaps(first, second):
            yield f"{first['title']} and {second['title']} overlap"
    known = {variable["name"] for variable in dashboard["templating"]["list"]}
    known |= VARIABLES.keys() | {"__all"} | {its["name"] for its in dashboard["__inputs"]}
    for name in sorted(set(re.findall(r"\$\{?([a-zA-Z_]\w*)", text)) - known):
        yield f"the variable ${name} does not exist"


def problems(rules, queries, dashboard_text, dashboard):
    fire, quiet = tested_alerts(TESTS.read_text())
    headings = anchors(RUNBOOKS.read_text())
    names = [name for name, _, _ in rules]
    for name, _, runbook in rules:
        if names.count(name) > 1:
            yield f"{ALERTS}: there are several alerts {name}"
        if name not in fire:
            yield f"{TESTS}: there is no case in which {name} fires"
        if name not in quiet:
            yield f"{TESTS}: there is no case in which {name} does not fire"
        if not runbook.endswith(f"{RUNBOOKS}#{name.lower()}"):
            yield f"{ALERTS}: the runbook of {name} is not {RUNBOOKS}#{name.lower()}"
        if name.lower() not in headings:
            yield f"{RUNBOOKS}: there is no heading {name}"
    for name in sorted((fire | quiet) - set(names)):
        yield f"{TESTS}: there is no alert {name}"
    for problem in dashboard_problems(dashboard_text, dashboard):
        yield f"{DASHBOARD}: {problem}"
    if not METRICS.exists():
        yield f"{METRICS} is missing"
        return
    documented = documented_metrics(METRICS.read_text())
    used = [(f"{ALERTS}: {name}", expression) for name, expression, _ in rules]
    used += [(f"{DASHBOARD}: {where}", query) for where, query in queries]
    for where, query in used:
        for metric in sorted(used_metrics(query)):
            if not is_documented(metric, documented):
                yield f"{where}: {METRICS} does not list {metric}"


def main(rules_file):
    rules = list(alert_rules(ALERTS.read_text()))
    dashboard_text = DASHBOARD.read_text()
    dashboard = json.loads(dashboard_text)
    queries = list(dashboard_queries(dashboard))
    if METRICS.exists():
        queries += documented_queries(METRICS.read_text())
    found = list(problems(rules, queries, dashboard_text, dashboard))
    if found:
        raise SystemExit("\n".join(found))
    # JSON is YAML. promtool names the rule that it cannot parse.
    as_rules = [
        {"record": re.sub(r"\W+", "_", f"query_{number}_{where}"), "expr": query}
        for number, (where, query) in enumerate(queries)
    ]
    group = {"groups": [{"name": "dashboard", "rules": as_rules}]}
    pathlib.Path(rules_file).write_text(json.dumps(group, indent=2))
    print(
        f"ops: {len(rules)} alerts have tests and runbooks, and they and the {len(queries)} queries "
        "of the dashboard and the documentation use documented metrics"
    )


if __name__ == "__main__":
    main(sys.argv[1])
