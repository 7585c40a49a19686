// Argo's own offline linter, its template substitution and its expressions, for the tests of workflows/argo.
//
//	argo-lint FILE…      lints the files, which may refer to each other; exits with 1 where one is refused
//	argo-lint -eval      reads JSON lines from stdin and answers each with one:
//	                     {"text": JSON with {{tags}}, "values": {…}} is substituted as the controller does it,
//	                     {"condition": expression, "values": {…}} is decided as a retryStrategy's is
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"

	"github.com/argoproj/argo-workflows/v4/cmd/argo/lint"
	"github.com/argoproj/argo-workflows/v4/pkg/apiclient"
	workflow "github.com/argoproj/argo-workflows/v4/pkg/apis/workflow"
	"github.com/argoproj/argo-workflows/v4/util/expr/argoexpr"
	"github.com/argoproj/argo-workflows/v4/util/expr/env"
	"github.com/argoproj/argo-workflows/v4/util/logging"
	"github.com/argoproj/argo-workflows/v4/util/template"
)

type question struct {
	Text      string            `json:"text"`
	Condition string            `json:"condition"`
	Values    map[string]string `json:"values"`
}

type answer struct {
	Text  string `json:"text,omitempty"`
	True  bool   `json:"true"`
	Error string `json:"error,omitempty"`
}

func main() {
	ctx := logging.WithLogger(context.Background(), logging.NewSlogLogger(logging.Error, logging.Text))
	if len(os.Args) == 2 && os.Args[1] == "-eval" {
		evaluate(ctx)
		return
	}
	files := os.Args[1:]
	ctx, client, err := apiclient.NewClientFromOptsWithContext(ctx, apiclient.Opts{Offline: true, OfflineFiles: files})
	fail(err)
	kinds := []string{
		workflow.WorkflowPlural, workflow.WorkflowTemplatePlural,
		workflow.CronWorkflowPlural, workflow.ClusterWorkflowTemplatePlural,
	}
	// Exits with 1 where a file is refused.
	fail(lint.RunLint(ctx, client, kinds, "simple", true, lint.LintOptions{
		Files: files, Strict: true, Printer: os.Stdout,
	}))
}

func evaluate(ctx context.Context) {
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 16<<20)
	out := json.NewEncoder(os.Stdout)
	for lines.Scan() {
		var q question
		fail(json.Unmarshal(lines.Bytes(), &q))
		var a answer
		var err error
		if q.Condition != "" {
			values := map[string]any{}
			for name, value := range q.Values {
				values[name] = value
			}
			a.True, err = argoexpr.EvalBool(q.Condition, env.GetFuncMap(values))
		} else {
			// As for a DAG's task: what comes of other tasks must be there, {{item}} may come later.
			a.Text, err = template.ReplaceStrict(ctx, q.Text, q.Values, []string{"tasks", "steps"})
		}
		if err != nil {
			a.Error = err.Error()
		}
		fail(out.Encode(a))
	}
	fail(lines.Err())
}

func fail(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
