package main

import (
	"bytes"
	"image/color"
	"slices"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"
)

// Colors that can be read on white and on black; the background is transparent.
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

// A chart is drawn as lines, or as dots in rows that have names.
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

// row returns where a row is, the first one on top.
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
