package server

// serviceState is whether a service outside of this process answers: err is nil, or what it lacks.
type serviceState struct {
	name string
	err  error
}

// services are the services that the options name, with their states of now. It returns at once.
func (s *Server) services() (list []serviceState) {
	if s.o.Postgres.URL != "" {
		list = append(list, serviceState{"postgres", s.store.State()})
	}
	if s.mq != nil {
		err := s.hub.EventsState()
		if s.o.logged() {
			if failed := s.hub.LogState(); failed != nil {
				err = failed
			}
		}
		list = append(list, serviceState{"rocketmq", err})
	}
	if s.redis != nil {
		list = append(list, serviceState{"redis", s.hub.ClusterState()})
	}
	return list
}
