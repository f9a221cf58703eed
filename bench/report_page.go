package bench

// reportPage is the template of the report. It has no script and no address of anything outside.
const reportPage = `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>meshbench {{.Scenario}}</title>
<style>
:root { --text: #1b1f24; --soft: #59636e; --page: #fff; --card: #f6f8fa; --rule: #d1d9e0; --good: #1a7f37; --bad: #cf222e; --warn: #9a6700;
  --c0: #0b62d6; --c1: #b35900; --c2: #8430ce; --c3: #c0244b; }
@media (prefers-color-scheme: dark) {
  :root { --text: #e6edf3; --soft: #9aa4af; --page: #0d1117; --card: #161b22; --rule: #30363d; --good: #3fb950; --bad: #ff7b72; --warn: #d29922;
    --c0: #58a6ff; --c1: #f0a35e; --c2: #c297ff; --c3: #ff7b9c; }
}
* { box-sizing: border-box }
body { margin: 0 auto; max-width: 72rem; padding: 1rem; background: var(--page); color: var(--text); font: 16px/1.45 system-ui, sans-serif }
h1 { font-size: 1.4rem; margin: 0 } h2 { font-size: 1.05rem; margin: 0 0 .5rem }
p { margin: .25rem 0 } .soft { color: var(--soft); font-size: .875rem }
.good { color: var(--good); font-weight: 600 } .bad { color: var(--bad); font-weight: 600 } .warn { color: var(--warn); font-weight: 600 }
main { display: grid; gap: 1rem; margin-top: 1rem; grid-template-columns: repeat(auto-fit, minmax(min(100%, 26rem), 1fr)) }
section { background: var(--card); border: 1px solid var(--rule); border-radius: .5rem; padding: .75rem; min-width: 0 }
.wide { grid-column: 1 / -1 }
.tiles { display: grid; gap: .5rem 1rem; grid-template-columns: repeat(auto-fit, minmax(8rem, 1fr)) }
.tiles div { min-width: 0 } .tiles strong { display: block; font-size: 1.6rem; line-height: 1.2; font-weight: 600; font-variant-numeric: tabular-nums }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums }
th, td { text-align: left; vertical-align: top; padding: .25rem .5rem .25rem 0; border-top: 1px solid var(--rule); overflow-wrap: anywhere }
tr:first-child > * { border-top: 0 } th { font-weight: 500; color: var(--soft); white-space: nowrap }
.scroll { overflow-x: auto } .scroll td, .scroll th { white-space: nowrap; text-align: right; font-size: .8125rem; padding-right: .6rem } .scroll th:first-child { text-align: left }
pre { white-space: pre-wrap; overflow-wrap: anywhere; font-size: .8125rem; margin: .5rem 0 0 }
svg { display: block; width: 100%; height: auto } svg text { font-size: 11px; fill: var(--soft) }
.grid { stroke: var(--rule); stroke-width: .5; fill: none } .tick { stroke: var(--soft); fill: none } .band { fill: var(--rule); opacity: .45 }
.line { fill: none; stroke-width: 1.6; stroke-linejoin: round; stroke-linecap: round }
.c0 { stroke: var(--c0) } .c1 { stroke: var(--c1); stroke-dasharray: 5 3 } .c2 { stroke: var(--c2) } .c3 { stroke: var(--c3) }
.legend { display: flex; flex-wrap: wrap; gap: .1rem 1rem; margin: .25rem 0 0; padding: 0; list-style: none; font-size: .875rem }
.legend svg { display: inline-block; width: 1.25rem; height: .5rem; margin-right: .3rem; vertical-align: middle }
summary { cursor: pointer }
</style>
</head>
<body>
<header>
<h1>meshbench {{.Scenario}}</h1>
<p class="soft">{{.When}}</p>
{{if .OK}}<p class="good">✓ Checked: nothing missing, repeated or out of order.</p>
{{else}}<p class="bad">✗ The server did not keep a promise, see below.</p>{{end}}
{{with .Limit}}<p class="warn">Limited by {{.}}</p>{{end}}
</header>
<main>
{{if .Tiles}}<section class="wide tiles">{{range .Tiles}}<div><span class="soft">{{.Name}}</span><strong>{{.Value}}</strong><span class="soft">{{.Unit}}</span></div>
{{end}}</section>
{{end}}{{if .Latencies}}<section class="wide"><h2>Latency, ms</h2><div class="scroll"><table>
<tr><th></th><th>p50</th><th>p90</th><th>p99</th><th>p99.9</th><th>max</th><th>count</th></tr>
{{range .Latencies}}<tr><th scope="row">{{.Name}}</th><td>{{.P50}}</td><td>{{.P90}}</td><td>{{.P99}}</td><td>{{.P999}}</td><td>{{.Max}}</td><td>{{.Count}}</td></tr>
{{end}}</table></div></section>
{{end}}{{range .Plots}}<section><h2>{{.Title}}</h2>
{{.SVG}}
<ul class="legend">{{range $i, $name := .Legend}}<li><svg viewBox="0 0 20 8" aria-hidden="true"><path class="line c{{$i}}" d="M1 4h18"/></svg>{{$name}}</li>{{end}}</ul>
{{with .Note}}<p class="soft">{{.}}</p>{{end}}</section>
{{end}}<section class="wide"><h2>Summary</h2><table>
{{range .Summary}}<tr><th scope="row">{{.Name}}</th><td>{{.Value}}</td></tr>
{{end}}</table></section>
{{if .FloorRows}}<section class="wide"><h2>What this kernel allows</h2><table>
{{range .FloorRows}}<tr><th scope="row">{{.Name}}</th><td>{{.Value}}</td></tr>
{{end}}</table></section>
{{end}}<section class="wide"><h2>Checks</h2>
{{if .FailureList}}<table>
{{range .FailureList}}<tr><th scope="row" class="bad">{{.Name}}</th><td>{{.Value}}</td></tr>
{{end}}</table>{{else if .OK}}<p class="good">All passed.</p>{{end}}
{{if .Evidence}}<pre>{{range .Evidence}}{{.}}
{{end}}</pre>{{end}}
<p class="soft">{{.Lags}} LAG packets, {{.Gaps}} gaps pulled. Busiest event loop of the load {{printf "%.2f" .Load.BusyLoop}} of the time awake, longest stall {{printf "%.1f" .Load.MaxStall}} ms, other processes {{printf "%.2f" .Others}} cores.</p></section>
<section><h2>Machine</h2><table>
{{range .Machine}}<tr><th scope="row">{{.Name}}</th><td>{{.Value}}</td></tr>
{{end}}</table></section>
<section><h2>Configuration</h2><table>
{{range .Configuration}}<tr><th scope="row">{{.Name}}</th><td>{{.Value}}</td></tr>
{{end}}</table></section>
{{if .Samples}}<section class="wide"><details><summary>Second by second</summary><div class="scroll"><table>
<tr><th>s</th><th>stage</th><th>delivered/s</th><th>accepted/s</th><th>p50 ms</th><th>p99 ms</th><th>max ms</th><th>connections</th><th>server MB</th><th>server cores</th><th>load cores</th></tr>
{{range .Samples}}<tr><td>{{printf "%.1f" .At}}</td><td>{{.Stage}}</td><td>{{printf "%.0f" .Delivered}}</td><td>{{printf "%.0f" .Accepted}}</td>{{with .Delivery}}<td>{{printf "%.2f" .P50}}</td><td>{{printf "%.2f" .P99}}</td><td>{{printf "%.2f" .Max}}</td>{{else}}<td></td><td></td><td></td>{{end}}<td>{{.Connections}}</td><td>{{.ServerMB}}</td><td>{{printf "%.2f" .ServerCPU}}</td><td>{{printf "%.2f" .LoadCPU}}</td></tr>
{{end}}</table></div></details></section>{{end}}
</main>
</body>
</html>
`

// ServerMB is ServerRSSAnon for a table, empty when it is unknown.
func (s Sample) ServerMB() string {
	if s.ServerRSSAnon == 0 {
		return ""
	}
	return short(float64(s.ServerRSSAnon) / 1e6)
}
