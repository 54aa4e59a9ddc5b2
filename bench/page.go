package main

import (
	"bytes"
	_ "embed"
	"fmt"
	"image/color"
	"slices"
	"strings"
	"text/template"

	"gonum.org/v1/gonum/stat"
	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"
)

//go:embed page.md.tmpl
var pageText string

// draw returns the page and its charts by file name.
func (r *results) draw() map[string][]byte {
	files, charts := map[string][]byte{}, r.charts()
	for name, c := range charts {
		files["charts/"+name+".svg"] = c.svg()
	}
	var page bytes.Buffer
	check(template.Must(template.New("").Funcs(template.FuncMap{
		"chart":  func(name string) string { return fmt.Sprintf("![%s](charts/%s.svg)", charts[name].title, name) },
		"each":   func(n, of int) int { return n / of },
		"median": func(values []float64) string { return figure(quartiles(values)[1]) },
		"seen":   func() string { return figure(quartiles(r.of("Verify", "RS256")[2].NS)[1] / 1000) },
	}).Parse(pageText)).Execute(&page, r))
	files["RESULTS.md"] = page.Bytes()
	return files
}

func (r *results) charts() map[string]chart {
	memory := chart{title: "Memory of the token cache", x: "different tokens verified", y: "MiB"}
	for _, f := range r.Memory {
		for i, n := range f.Verified {
			memory.add(fmt.Sprintf("tokens of %s kB", figure(float64(f.TokenBytes)/1000)), same(n), f.HeapMiB[i])
		}
	}
	story := chart{title: "Good tokens refused", x: "percent", dots: true}
	for _, t := range r.Story {
		story.add("within 5 minutes of a revocation", same(100*float64(t.RefusedInWindow)/float64(t.Tokens)), story.row(t.Name))
		story.add("at other times", same(100*float64(t.Refused)/float64(t.Tokens)), story.row(t.Name))
	}
	calls := chart{title: "Calls of an instance, on average", x: "instances", y: "calls", logarithmic: true}
	seconds := chart{title: "Time until every instance serves", x: "instances", y: "seconds", logarithmic: true}
	for _, s := range r.Scale {
		if !strings.Contains(s.Scenario, "outage") { // which makes one call a minute
			calls.add(s.Scenario, same(s.Instances), s.Calls)
		}
		if s.Seconds < 60 { // slower ones just wait for the regular refresh
			seconds.add(s.Scenario, same(s.Instances), s.Seconds)
		}
	}
	return map[string]chart{"memory": memory, "story": story, "scale-calls": calls, "scale-seconds": seconds,
		"verify":  r.ratioChart("Verify", "Verify a token for the first time", false),
		"require": r.ratioChart("Require", "Middleware: Require, and CheckJWT of go-jwt-middleware", true)}
}

func same(x float64) [3]float64 { return [3]float64{x, x, x} }

// ratioChart has a row for each contender and a curve for each algorithm.
func (r *results) ratioChart(operation, title string, withSeen bool) chart {
	c := chart{title: title, x: "ratio to the bare crypto call", dots: true, logarithmic: withSeen}
	for _, algorithm := range algorithms {
		for _, s := range r.of(operation, algorithm) {
			if s.Contender != bare && (withSeen || !strings.HasSuffix(s.Contender, seen)) {
				c.add(algorithm, r.ratio(s), c.row(s.Contender))
			}
		}
	}
	return c
}

// of returns the series of an operation in the order of contenders.
func (r *results) of(operation, algorithm string) (all []*series) {
	for i, s := range r.Series {
		if s.Operation == operation && s.Algorithm == algorithm {
			all = append(all, &r.Series[i])
		}
	}
	return all
}

// ratio returns the quartiles of the ratio to the bare call over all rounds.
func (r *results) ratio(s *series) [3]float64 {
	base := strings.Replace(s.Operation, "Require", "Verify", 1)
	ratios := slices.Clone(s.NS)
	for i, ns := range r.of(base, s.Algorithm)[0].NS { // the bare call is the first
		ratios[i] /= ns
	}
	return quartiles(ratios)
}

func quartiles(values []float64) (q [3]float64) {
	sorted := slices.Sorted(slices.Values(values))
	for i := range q {
		q[i] = stat.Quantile(float64(i+1)/4, stat.LinInterp, sorted, nil)
	}
	return q
}

// Table returns a line for each operation of each contender.
func (r *results) Table() (lines []string) {
	for _, operation := range []string{"Verify", "Issue", "Require", "JWKS"} {
		for i, first := range r.of(operation, algorithms[0]) {
			line := operation + ", " + first.Contender
			for _, algorithm := range algorithms {
				s := r.of(operation, algorithm)[i]
				q := r.ratio(s)
				if s.Contender == bare {
					line += "|" + figure(quartiles(s.NS)[1]/1000) + " µs"
				} else {
					line += fmt.Sprintf("|%s (%s–%s)", figure(q[1]), figure(q[0]), figure(q[2]))
				}
			}
			lines = append(lines, fmt.Sprintf("%s|%d", line, first.Allocs))
		}
	}
	return lines
}

func figure(x float64) string {
	if x >= 100 {
		return fmt.Sprintf("%.0f", x)
	}
	return fmt.Sprintf("%#.3g", x)
}

// Colors that are readable on white and on black, because the background is transparent.
var (
	gray   = color.RGBA{0x77, 0x7c, 0x82, 0xff}
	grid   = color.NRGBA{0x77, 0x7c, 0x82, 0x40}
	colors = []color.Color{color.RGBA{0x3b, 0x82, 0xf6, 0xff}, color.RGBA{0xe0, 0x7b, 0x39, 0xff}, color.RGBA{0x22, 0xa0, 0x6b, 0xff},
		color.RGBA{0xa8, 0x55, 0xf7, 0xff}, color.RGBA{0xd6, 0x4a, 0x7b, 0xff}, color.RGBA{0x14, 0x9f, 0xb5, 0xff}, gray}
)

// A curve is a series of points, each with quartiles in x, or one value three times.
type curve struct {
	name string
	x    [][3]float64
	y    []float64
}

func (c *curve) Len() int                { return len(c.x) }
func (c *curve) XY(i int) (x, y float64) { return c.x[i][1], c.y[i] }
func (c *curve) XError(i int) (low, high float64) {
	return c.x[i][1] - c.x[i][0], c.x[i][2] - c.x[i][1]
}

// A chart is drawn as lines, or as dots in named rows.
type chart struct {
	title, x, y       string
	dots, logarithmic bool // in x
	rows              []string
	curves            []*curve
}

// add adds a point to the curve of this name.
func (c *chart) add(name string, x [3]float64, y float64) {
	i := slices.IndexFunc(c.curves, func(c *curve) bool { return c.name == name })
	if i < 0 {
		i, c.curves = len(c.curves), append(c.curves, &curve{name: name})
	}
	c.curves[i].x, c.curves[i].y = append(c.curves[i].x, x), append(c.curves[i].y, y)
}

// row returns the y position of a row; the first row is on top.
func (c *chart) row(name string) (y float64) {
	if !slices.Contains(c.rows, name) {
		c.rows = append(c.rows, name)
	}
	return -float64(slices.Index(c.rows, name))
}

// frame returns the chart without its points.
func (c chart) frame() *plot.Plot {
	plot.DefaultFont = font.Font{Typeface: "Liberation", Variant: "Sans"}
	p := plot.New()
	p.Title.Text, p.X.Label.Text, p.Y.Label.Text = c.title, c.x, c.y
	p.BackgroundColor, p.Title.Padding = color.Transparent, vg.Points(8)
	for _, style := range []*text.Style{&p.Title.TextStyle, &p.Legend.TextStyle, &p.X.Label.TextStyle, &p.Y.Label.TextStyle,
		&p.X.Tick.Label, &p.Y.Tick.Label} {
		style.Color, style.Font.Size = gray, vg.Points(10)
	}
	for _, style := range []*draw.LineStyle{&p.X.LineStyle, &p.Y.LineStyle, &p.X.Tick.LineStyle, &p.Y.Tick.LineStyle} {
		style.Color = gray
	}
	lines := plotter.NewGrid()
	lines.Vertical.Color, lines.Horizontal.Color = grid, grid
	p.Add(lines)
	if c.logarithmic {
		p.X.Scale, p.X.Tick.Marker = plot.LogScale{}, plot.LogTicks{Prec: -1}
	}
	return p
}

func (c chart) svg() []byte {
	p, height := c.frame(), vg.Points(300)
	for i, curve := range c.curves {
		for row := range c.rows {
			curve.y[row] += (float64(len(c.curves)-1)/2 - float64(i)) * 0.22
		}
		line, dots, err := plotter.NewLinePoints(curve)
		check(err)
		line.Color, line.Width = colors[i%len(colors)], vg.Points(2)
		dots.GlyphStyle = draw.GlyphStyle{Color: line.Color, Radius: vg.Points(3), Shape: draw.CircleGlyph{}}
		if !c.dots {
			p.Add(line)
		} else {
			spread := must(plotter.NewXErrorBars(curve))
			spread.Color = line.Color
			p.Add(spread)
		}
		p.Add(dots)
		p.Legend.Add(curve.name, dots)
	}
	p.Legend.Top, p.Legend.Left = true, !c.dots
	p.Y.Min, p.Y.Max = 0, p.Y.Max*(1+0.09*float64(len(c.curves))) // room for the legend
	if c.dots {
		var ticks plot.ConstantTicks
		for i, row := range c.rows {
			ticks = append(ticks, plot.Tick{Value: -float64(i), Label: row + "   "})
		}
		p.Y.Tick.Length = 0
		p.Y.Tick.Marker, p.Y.Min, p.Y.Max = ticks, 0.4-float64(len(c.rows)), 1.2
		height = vg.Points(80 + 28*float64(len(c.rows)))
	}
	canvas, out := vgsvg.New(vg.Points(640), height), bytes.Buffer{}
	p.Draw(draw.Crop(draw.New(canvas), vg.Points(6), -vg.Points(24), vg.Points(4), -vg.Points(6)))
	must(canvas.WriteTo(&out))
	return bytes.ReplaceAll(out.Bytes(), []byte("family:Liberation Sans"), []byte("family:Liberation Sans,Arial,sans-serif"))
}
