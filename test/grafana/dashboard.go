// Package grafana reads the project's dashboard as Grafana stores it, so that
// tests can look at it and run its queries.
package grafana

import (
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"strings"
)

// Path of the dashboard, below the repository's root.
const Path = "deploy/grafana/postern.json"

// Dashboard is what is looked at of one.
type Dashboard struct {
	UID           string  `json:"uid"`
	SchemaVersion int     `json:"schemaVersion"`
	Panels        []Panel `json:"panels"`
	Templating    struct {
		List []Variable `json:"list"`
	} `json:"templating"`
}

// Variable is something that who looks chooses.
type Variable struct {
	Name  string `json:"name"`
	Type  string `json:"type"`
	Query Query  `json:"query"`
	// Datasource of type query.
	Datasource Datasource `json:"datasource"`
}

// Query is what the values of a variable are.
type Query struct{ Query string }

// UnmarshalJSON takes what Grafana writes: an object, or its text alone.
func (q *Query) UnmarshalJSON(encoded []byte) error {
	if err := json.Unmarshal(encoded, &q.Query); err == nil {
		return nil
	}
	var object struct{ Query string }
	err := json.Unmarshal(encoded, &object)
	q.Query = object.Query
	return err
}

// Panel is a panel or, with the type "row", the heading of those below it.
type Panel struct {
	ID          int        `json:"id"`
	Type        string     `json:"type"`
	Title       string     `json:"title"`
	Description string     `json:"description"`
	Position    Position   `json:"gridPos"`
	Datasource  Datasource `json:"datasource"`
	Targets     []Target   `json:"targets"`
	// Panels are those of a row that is collapsed.
	Panels []Panel `json:"panels"`
}

// Position is in cells of a grid that is Columns wide.
type Position struct{ X, Y, W, H int }

// Columns is how wide a dashboard is.
const Columns = 24

// Overlaps tells whether two panels cover one another.
func (p Position) Overlaps(q Position) bool {
	return p.X < q.X+q.W && q.X < p.X+p.W && p.Y < q.Y+q.H && q.Y < p.Y+p.H
}

// Datasource is where data comes from.
type Datasource struct{ Type, UID string }

// Target is one query of a panel.
type Target struct {
	RefID      string     `json:"refId"`
	Datasource Datasource `json:"datasource"`
	Expr       string     `json:"expr"`
	Exemplar   bool       `json:"exemplar"`
}

// Read reads a dashboard.
func Read(path string) (Dashboard, error) {
	contents, err := os.ReadFile(path)
	if err != nil {
		return Dashboard{}, fmt.Errorf("read the dashboard: %w", err)
	}
	var d Dashboard
	if err := json.Unmarshal(contents, &d); err != nil {
		return Dashboard{}, fmt.Errorf("read the dashboard of %s: %w", path, err)
	}
	return d, nil
}

// Variables returns the names of the variables in an expression, Grafana's own
// included.
func Variables(expression string) []string {
	var names []string
	for _, match := range variable().FindAllStringSubmatch(expression, -1) {
		names = append(names, match[1])
	}
	return names
}

// Expand puts values in place of an expression's variables.
func Expand(expression string, values map[string]string) string {
	return variable().ReplaceAllStringFunc(expression, func(name string) string {
		return values[strings.TrimPrefix(name, "$")]
	})
}

func variable() *regexp.Regexp { return regexp.MustCompile(`\$(\w+)`) }
