package check

import (
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	apps "k8s.io/api/apps/v1"
	core "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"
)

// cluster are the values without which there is none.
var cluster = []string{
	"cluster.enable=true", "secret.postgresUrl=postgres://meshtalk:secret@postgres:5432/meshtalk", "secret.redisPassword=secret",
	"secret.jwtSecret=0123456789abcdef0123456789abcdef", "config.redis.host=redis", "config.rocketmq.name-server=namesrv:9876",
}

func TestChart(t *testing.T) {
	for name, test := range map[string]struct {
		values  []string
		secrets map[string]string // of a Secret that is there already
		check   func(*testing.T, *rendered)
	}{
		"one node": {check: isOneNode},
		"one node, other ports and times": {
			values: []string{
				"config.websocket.port=9000", "config.tcpsocket.port=9001", "config.admin.port=9002", "config.limits.connections-per-ip=10",
				"service.type=LoadBalancer", "service.externalTrafficPolicy=Local", "service.websocketPort=80", "stop.timeoutSeconds=120",
				"stop.preStopSeconds=15", "persistence.storageClass=fast", "extraEnv[0].name=MESHTALK_LOG_LEVEL", "extraEnv[0].value=debug",
				"fullnameOverride=talk", "podLabels.team=chat", "secret.adminToken=given",
			},
			check: isOneNode,
		},
		"one node, nothing kept, WebSocket only": {
			values: []string{"persistence.enable=false", "config.tcpsocket.enable=false"},
			check: func(t *testing.T, r *rendered) {
				if len(r.set.Spec.VolumeClaimTemplates) != 0 {
					t.Error("a volume is asked for")
				}
			},
		},
		"cluster": {values: cluster, check: isCluster},
		"cluster with a Secret of its own, watched": {
			values: []string{
				"cluster.enable=true", "cluster.replicas=5", "secret.existing=theirs", "config.redis.address={redis-0:6379,redis-1:6379}",
				"config.rocketmq.name-server=namesrv:9876", "serviceMonitor.enable=true", "serviceMonitor.labels.release=prometheus",
				"podDisruptionBudget.maxUnavailable=40%",
			},
			secrets: map[string]string{
				"admin-token": "token", "jwt-secret": "0123456789abcdef0123456789abcdef", "postgres-url": "postgres://a:b@c/d",
				"rocketmq-access-key": "a", "rocketmq-secret-key": "b",
			},
			check: isWatched,
		},
	} {
		t.Run(name, func(t *testing.T) {
			args := []string{"lint", "--strict", "--quiet", chart}
			for _, v := range test.values {
				args = append(args, "--set", v)
			}
			output(t, exec.Command(tool(t, "HELM"), args...))
			r := render(t, test.values...)
			if out := output(t, r.meshtalk(t, test.secrets, "config", "check")); out != "ok\n" {
				t.Error(out)
			}
			var e effective
			if err := yaml.Unmarshal([]byte(output(t, r.meshtalk(t, test.secrets, "config", "print"))), &e); err != nil {
				t.Fatal(err)
			}
			r.checkPorts(t, e)
			r.checkStop(t, e)
			r.checkSecurity(t, e)
			r.checkSelectors(t)
			r.checkMemory(t)
			if e.Cluster.NodeID != r.set.Name+"-0" || e.Cluster.Advertise != r.set.Name+"-0."+r.set.Spec.ServiceName+":"+strconv.Itoa(int(e.Admin.Port)) {
				t.Errorf("%+v", e.Cluster)
			}
			if e.Cluster.Enable == (*r.set.Spec.Replicas == 1) {
				t.Errorf("%d nodes, a cluster: %v", *r.set.Spec.Replicas, e.Cluster.Enable)
			}
			test.check(t, r)
		})
	}
}

func isOneNode(t *testing.T, r *rendered) {
	claims := r.set.Spec.VolumeClaimTemplates
	if len(claims) != 1 || claims[0].Name != "data" || claims[0].Spec.Resources.Requests.Storage().IsZero() || r.budget != nil || r.monitor != nil {
		t.Errorf("%+v %+v %+v", claims, r.budget, r.monitor)
	}
	if p := r.set.Spec.PersistentVolumeClaimRetentionPolicy; p == nil || p.WhenDeleted != apps.RetainPersistentVolumeClaimRetentionPolicyType {
		t.Errorf("%+v", p)
	}
	if token := r.secret.Data["admin-token"]; string(token) != "given" && len(token) != 40 {
		t.Errorf("the token is %q", token)
	}
}

func isCluster(t *testing.T, r *rendered) {
	if len(r.set.Spec.VolumeClaimTemplates) != 0 || r.budget == nil {
		t.Fatalf("%+v %+v", r.set.Spec.VolumeClaimTemplates, r.budget)
	}
	if !maps.Equal(r.budget.Spec.Selector.MatchLabels, r.set.Spec.Selector.MatchLabels) || r.budget.Spec.MaxUnavailable.String() == "0" {
		t.Errorf("%+v", r.budget.Spec)
	}
}

func isWatched(t *testing.T, r *rendered) {
	isCluster(t, r)
	if r.secret != nil || r.monitor == nil || r.monitor.Metadata.Labels["release"] != "prometheus" || len(r.monitor.Spec.Endpoints) != 1 {
		t.Fatalf("%+v %+v", r.secret, r.monitor)
	}
	e := r.monitor.Spec.Endpoints[0]
	if e.Path != "/metrics" || e.Authorization.Credentials.Name != "theirs" || e.Authorization.Credentials.Key != "admin-token" {
		t.Errorf("%+v", e)
	}
	var found []string
	for name, s := range r.services {
		if matches(r.monitor.Spec.Selector.MatchLabels, s.Labels) {
			found = append(found, name)
			if !slices.ContainsFunc(s.Spec.Ports, func(p core.ServicePort) bool { return p.Name == e.Port }) {
				t.Errorf("%s has no port %s", name, e.Port)
			}
		}
	}
	if !slices.Equal(found, []string{r.set.Spec.ServiceName}) {
		t.Errorf("the monitor finds %v", found)
	}
}

func matches(selector, labels map[string]string) bool {
	for key, value := range selector {
		if labels[key] != value {
			return false
		}
	}
	return len(selector) > 0
}

// checkPorts: container, probes and Services speak of the ports that the configuration has.
func (r *rendered) checkPorts(t *testing.T, e effective) {
	t.Helper()
	want := map[string]int32{"admin": e.Admin.Port}
	if e.WebSocket.Enable {
		want["websocket"] = e.WebSocket.Port
	}
	if e.TCPSocket.Enable {
		want["tcp"] = e.TCPSocket.Port
	}
	c := r.container(t)
	got := map[string]int32{}
	for _, p := range c.Ports {
		got[p.Name] = p.ContainerPort
	}
	if !maps.Equal(got, want) {
		t.Errorf("the container has %v, the configuration %v", got, want)
	}
	for path, p := range map[string]*core.Probe{"/healthz": c.LivenessProbe, "/readyz": c.ReadinessProbe} {
		if p == nil || p.HTTPGet == nil || p.HTTPGet.Path != path || got[p.HTTPGet.Port.StrVal] != e.Admin.Port {
			t.Errorf("%s: %+v", path, p)
		}
	}
	if p := c.StartupProbe; p == nil || p.HTTPGet.Path != "/healthz" || got[p.HTTPGet.Port.StrVal] != e.Admin.Port || p.PeriodSeconds*p.FailureThreshold < 120 {
		t.Errorf("%+v", p)
	}
	if e.Admin.Host != "0.0.0.0" {
		t.Errorf("nobody reaches the admin port of %q", e.Admin.Host)
	}
	clients, nodes := r.services[r.set.Name], r.services[r.set.Spec.ServiceName]
	if len(r.services) != 2 || nodes.Spec.ClusterIP != core.ClusterIPNone || len(clients.Spec.Ports) != len(want)-1 || len(nodes.Spec.Ports) != 1 {
		t.Errorf("%+v", r.services)
	}
	for name, s := range r.services {
		for _, p := range s.Spec.Ports {
			if _, is := got[p.TargetPort.StrVal]; !is || (p.TargetPort.StrVal == "admin") != (name == nodes.Name) {
				t.Errorf("%s: %+v", name, p)
			}
		}
	}
}

// checkStop: the pod is killed only when its stop has had its time.
func (r *rendered) checkStop(t *testing.T, e effective) {
	t.Helper()
	timeout, err := time.ParseDuration(e.Shutdown.Timeout)
	if err != nil {
		t.Fatal(err)
	}
	before := r.container(t).Lifecycle.PreStop.Sleep
	if before == nil || before.Seconds < 1 {
		t.Fatalf("%+v", before)
	}
	grace := time.Duration(*r.pod().Spec.TerminationGracePeriodSeconds) * time.Second
	if need := timeout + time.Duration(before.Seconds)*time.Second; grace < need+5*time.Second {
		t.Errorf("%s until it is killed, a stop takes up to %s", grace, need)
	}
}

// checkSecurity: no root, nothing to write but the volume, no variable that a Service of the namespace could add.
func (r *rendered) checkSecurity(t *testing.T, e effective) {
	t.Helper()
	pod, s := r.pod().Spec, r.container(t).SecurityContext
	if !*pod.SecurityContext.RunAsNonRoot || *pod.SecurityContext.RunAsUser == 0 || pod.SecurityContext.FSGroup == nil ||
		pod.SecurityContext.SeccompProfile.Type != core.SeccompProfileTypeRuntimeDefault {
		t.Errorf("%+v", pod.SecurityContext)
	}
	if !*s.ReadOnlyRootFilesystem || *s.AllowPrivilegeEscalation || !slices.Equal(s.Capabilities.Drop, []core.Capability{"ALL"}) {
		t.Errorf("%+v", s)
	}
	if *pod.EnableServiceLinks || *pod.AutomountServiceAccountToken {
		t.Error("the pod is told of Services or of an account")
	}
	if at := r.mounted(t, "data"); at != path.Dir(e.DataDir) {
		t.Errorf("the volume is at %s, the data in %s: a backup goes beside it", at, e.DataDir)
	}
}

func (r *rendered) checkSelectors(t *testing.T) {
	t.Helper()
	labels := r.pod().Labels
	if !matches(r.set.Spec.Selector.MatchLabels, labels) {
		t.Errorf("StatefulSet: %v does not match %v", r.set.Spec.Selector.MatchLabels, labels)
	}
	for name, s := range r.services {
		if !matches(s.Spec.Selector, labels) {
			t.Errorf("%s: %v does not match %v", name, s.Spec.Selector, labels)
		}
	}
}

func (r *rendered) checkMemory(t *testing.T) {
	t.Helper()
	soft, ok := strings.CutSuffix(r.environment(t, map[string]string{"admin-token": ""})["GOMEMLIMIT"], "MiB")
	mib, err := strconv.ParseInt(soft, 10, 64)
	limits := r.container(t).Resources.Limits
	if limit := limits.Memory().Value() >> 20; !ok || err != nil || mib >= limit || mib < limit*8/10 {
		t.Errorf("GOMEMLIMIT %s of %d MiB", soft, limit)
	}
}

func TestChartRefuses(t *testing.T) {
	for _, test := range []struct {
		values []string
		want   string
	}{
		{[]string{"cluster.enable=true"}, "secret.postgresUrl"},
		{[]string{"cluster.enable=true", "secret.postgresUrl=postgres://a:b@c/d"}, "secret.jwtSecret"},
		{[]string{"config.websocket.enable=false", "config.tcpsocket.enable=false"}, "must be enabled"},
		{[]string{`config.log\.level=debug`}, "log.level"},
		{[]string{"config.data-dir=/data"}, "data-dir"},
		{[]string{"config.admin.token=x"}, "token"},
		{[]string{"stop.preStopSeconds=0"}, "preStopSeconds"},
		{[]string{"replicas=3"}, "replicas"},
	} {
		if out, err := helm(t, chart, test.values...); err == nil || !strings.Contains(out, test.want) {
			t.Errorf("%v: %v, want %q in\n%s", test.values, err, test.want, out)
		}
	}
}

// What the chart does not know, the server refuses: the configuration is checked by more than its looks.
func TestChartConfigIsJudged(t *testing.T) {
	r := render(t, "config.websocket.prot=8080")
	if out, err := r.meshtalk(t, nil, "config", "check").CombinedOutput(); err == nil || !strings.Contains(string(out), "websocket.prot") {
		t.Errorf("%v\n%s", err, out)
	}
}

// The example of docs/packaging.md is a cluster, with a Secret that has the keys that it names.
func TestDocument(t *testing.T) {
	text, err := os.ReadFile(root + "/docs/packaging.md")
	if err != nil {
		t.Fatal(err)
	}
	example := regexp.MustCompile("(?s)```yaml values of the chart\n(# cluster.yaml\n.*?)```").FindSubmatch(text)
	if example == nil {
		t.Fatal("no example")
	}
	file := filepath.Join(t.TempDir(), "cluster.yaml")
	if err := os.WriteFile(file, example[1], 0o644); err != nil {
		t.Fatal(err)
	}
	r := render(t, file)
	secrets := map[string]string{}
	for _, m := range regexp.MustCompile(`--from-literal=([a-z-]+)=`).FindAllSubmatch(text, -1) {
		value := "0123456789abcdef0123456789abcdef"
		if string(m[1]) == "postgres-url" {
			value = "postgres://meshtalk:secret@postgres/meshtalk"
		}
		secrets[string(m[1])] = value
	}
	if len(secrets) != 4 {
		t.Error(secrets)
	}
	if out := output(t, r.meshtalk(t, secrets, "config", "check")); out != "ok\n" {
		t.Error(out)
	}
	isCluster(t, r)
}
